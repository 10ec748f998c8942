"""Thread-safe bounded admission."""

import functools
import inspect
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from honeyhive_batcher.config import BatchLimits, QueueLimits
from honeyhive_batcher.core.batching import Groups
from honeyhive_batcher.core.body_limit import BodyLimit
from honeyhive_batcher.core.fragment import SESSIONLESS, Closing, Fragment, GroupKey, Repaired
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.ledger import Ledger, Statistics
from honeyhive_batcher.core.model import Admission, Batch, DropReason, Fate

OPENING, ENDING = b'{"model_events":[', b"]}"
MIDDLE = b'],"is_single_session":true,"session_properties":'


def intake(
    events: int = 1000,
    size: int = 1_000_000,
    *,
    overflow: str = "drop_newest",
    batch_events: int = 10,
    batch_bytes: int = 10_000,
) -> Intake:
    queue = QueueLimits(max_queue_events=events, max_queue_bytes=size, overflow=overflow)  # type: ignore[arg-type]
    return Intake(queue, BatchLimits(max_batch_events=batch_events, max_batch_bytes=batch_bytes))


def encoded(size: int = 10, event_id: str = "e") -> Fragment:
    return Fragment(b"x" * size, event_id)


def ending(closing: bytes = b"{}", size: int = 10, event_id: str = "e") -> Closing:
    return Closing(b"x" * size, event_id, closing=closing)


def session(name: str = "s", properties: int = 20) -> GroupKey:
    return GroupKey(session_id=name, properties=b"p" * properties)


def offer(queue: Intake, fragment: Fragment, key: GroupKey = SESSIONLESS, now: float = 0.0) -> Admission:
    """Do as `push` does."""
    if key is SESSIONLESS and type(fragment) is Fragment and queue.take(fragment):
        return Admission.ACCEPTED
    return queue.admit(fragment, key, now)


def adds_up(now: Statistics) -> bool:
    return (
        now.offered == now.accepted + sum(now.refused.values())
        and now.accepted == now.delivered + sum(now.dropped.values()) + now.unconfirmed + now.held
    )


def test_what_comes_within_a_millisecond_is_accepted_at_one_instant() -> None:
    queue = intake()
    times = [5.0, 5.0005, 5.000999, 5.001, 5.0015, 7.0, 6.0]  # a clock that runs backwards does no harm
    for at in times:
        queue.admit(encoded(), SESSIONLESS, at)
    queue.raise_barrier()
    batch = queue.cut(7.0)
    assert batch is not None
    instants = [fragment.accepted_at for fragment in batch.fragments]
    assert instants == [5.0, 5.0, 5.0, 5.001, 5.001, 7.0, 6.0]
    assert len({id(instant) for instant in instants}) == 4


def test_what_comes_at_one_time_shares_its_number_and_a_millisecond_later_is_another_instant() -> None:
    queue = intake()
    for at in ("0.0", "0.0", "0.001"):
        queue.admit(encoded(), SESSIONLESS, float(at))
    queue.raise_barrier()
    batch = queue.cut(1.0)
    assert batch is not None
    first, second, third = (fragment.accepted_at for fragment in batch.fragments)
    assert first is second
    assert (first, third) == (0.0, 0.001)


def settle_all(queue: Intake) -> list[str]:
    """Deliver everything that is queued; return the ids in the order in which they left."""
    queue.raise_barrier()
    event_ids: list[str] = []
    while (batch := queue.cut(0.0)) is not None:
        queue.settle(batch.fragments, Fate.DELIVERED)
        event_ids += [fragment.event_id for fragment in batch.fragments]
    return event_ids


def test_an_event_is_taken_and_charged_until_it_is_settled() -> None:
    queue = intake()
    assert queue.admit(Repaired(b"x" * 30, "e", repairs=2), SESSIONLESS, 1.0) is Admission.ACCEPTED
    now = queue.statistics()
    assert (now.offered, now.accepted, now.held, now.held_bytes, now.repaired) == (1, 1, 1, 30, 2)
    assert queue.ripe_at() == 2.0
    batch = queue.cut(2.0)
    assert batch is not None
    assert queue.statistics().held_bytes == 30
    queue.settle(batch.fragments, Fate.DELIVERED)
    now = queue.statistics()
    assert (now.delivered, now.held, now.held_bytes) == (1, 0, 0)


def test_repairs_are_counted_over_all_events() -> None:
    queue = intake()
    for repairs in (2, 0, 3):
        queue.admit(Repaired(b"{}", "e", repairs=repairs), SESSIONLESS, 0.0)
    assert queue.statistics().repaired == 5


def test_a_full_queue_refuses_the_newest() -> None:
    queue = intake(events=2)
    admissions = [queue.admit(encoded(event_id=str(number)), SESSIONLESS, 0.0) for number in range(4)]
    assert admissions == [Admission.ACCEPTED] * 2 + [Admission.QUEUE_FULL] * 2
    assert queue.statistics().refused == {"queue_full": 2}
    assert settle_all(queue) == ["0", "1"]


def test_a_full_queue_drops_the_oldest_when_it_is_to() -> None:
    queue = intake(events=2, overflow="drop_oldest")
    for number in range(4):
        assert queue.admit(encoded(event_id=str(number)), SESSIONLESS, 0.0)
    now = queue.statistics()
    assert (now.dropped, now.refused, now.held) == ({"evicted": 2}, {}, 2)
    assert settle_all(queue) == ["2", "3"]


def test_as_many_are_dropped_as_a_large_event_takes() -> None:
    queue = intake(size=100, overflow="drop_oldest")
    for number in range(10):
        queue.admit(encoded(10, str(number)), SESSIONLESS, 0.0)
    assert queue.admit(encoded(35, "large"), SESSIONLESS, 0.0)
    assert queue.statistics().held_bytes == 95
    assert settle_all(queue) == ["4", "5", "6", "7", "8", "9", "large"]


def test_nothing_is_dropped_for_an_event_that_would_not_fit_then_either() -> None:
    queue = intake(size=100, overflow="drop_oldest", batch_events=5)
    for number in range(10):
        queue.admit(encoded(10, str(number)), SESSIONLESS, 0.0)
    on_its_way = queue.cut(0.0)
    assert on_its_way is not None
    assert queue.admit(encoded(60), SESSIONLESS, 0.0) is Admission.QUEUE_FULL
    assert queue.statistics().dropped == {}
    assert queue.admit(encoded(50), SESSIONLESS, 0.0) is Admission.ACCEPTED
    assert queue.statistics().dropped == {"evicted": 5}


def test_when_all_is_on_its_way_nothing_is_dropped() -> None:
    queue = intake(events=10, overflow="drop_oldest", batch_events=10)
    for _ in range(10):
        queue.admit(encoded(), SESSIONLESS, 0.0)
    assert queue.cut(0.0) is not None
    assert queue.admit(encoded(), SESSIONLESS, 0.0) is Admission.QUEUE_FULL
    assert queue.statistics().dropped == {}


def test_when_only_closings_are_queued_nothing_is_dropped() -> None:
    queue = intake(events=2, overflow="drop_oldest")
    for name in ("a", "b"):
        assert queue.admit(ending(), session(name), 0.0)
    assert queue.admit(encoded(), SESSIONLESS, 0.0) is Admission.QUEUE_FULL
    assert queue.statistics().held == 2


def test_a_full_queue_is_not_counted_when_the_caller_waits() -> None:
    queue = intake(events=1)
    queue.admit(encoded(), SESSIONLESS, 0.0)
    assert queue.admit(encoded(), SESSIONLESS, 0.0, wait=True) is Admission.QUEUE_FULL
    assert queue.statistics().offered == 1
    assert queue.refuse(Admission.QUEUE_FULL) is Admission.QUEUE_FULL
    assert queue.statistics().offered == 2


def test_a_closed_queue_refuses_everything_until_it_is_opened_again() -> None:
    queue = intake()
    queue.admit(encoded(event_id="before"), SESSIONLESS, 0.0)
    queue.close()
    assert queue.admit(encoded(), SESSIONLESS, 0.0) is Admission.CLOSED
    assert queue.admit(ending(), session(), 0.0, wait=True) is Admission.CLOSED
    assert queue.ripe_at() == float("-inf")
    assert settle_all(queue) == ["before"]
    queue.reopen()
    assert queue.admit(encoded(), SESSIONLESS, 5.0) is Admission.ACCEPTED
    assert queue.ripe_at() == 6.0
    assert queue.statistics().refused == {"closed": 2}


def test_a_flush_is_noticed_also_when_nothing_is_queued() -> None:
    queue = intake()
    before = queue.flushes
    queue.lower_barrier(queue.raise_barrier())
    assert queue.flushes == before + 1
    queue.close()
    assert queue.flushes == before + 2


def test_a_barrier_makes_ripe_what_is_queued() -> None:
    queue = intake()
    queue.admit(encoded(), SESSIONLESS, 5.0)
    barrier = queue.raise_barrier()
    assert queue.ripe_at() == float("-inf")
    queue.admit(encoded(), SESSIONLESS, 5.0)
    batch = queue.cut(5.0)
    assert batch is not None
    queue.settle(batch.fragments, Fate.DELIVERED)
    assert (barrier.held, barrier.delivered) == (0, 1)
    queue.admit(encoded(), SESSIONLESS, 5.0)
    assert queue.ripe_at() == 6.0


def test_a_barrier_that_is_lowered_counts_no_more() -> None:
    queue = intake()
    queue.admit(encoded(), SESSIONLESS, 0.0)
    barrier = queue.raise_barrier()
    queue.lower_barrier(barrier)
    assert settle_all(queue) == ["e"]
    assert (barrier.held, barrier.delivered) == (1, 0)


def test_settlements_are_handed_out_once() -> None:
    queue = intake()
    queue.ledger.keep_settlements = True
    queue.admit(encoded(event_id="a"), SESSIONLESS, 0.0)
    settle_all(queue)
    assert [settlement.event_ids for settlement in queue.take_settlements()] == [("a",)]
    assert queue.take_settlements() == []
    queue.settle((), Fate.DROPPED, DropReason.SHUTDOWN)
    assert queue.take_settlements() == []


def sizes_cut(queue: Intake, now: float) -> list[int]:
    """Push four events of a kilobyte, flush, and return how many are cut at once."""
    for _ in range(4):
        queue.admit(encoded(1000), SESSIONLESS, now)
    queue.raise_barrier()
    sizes = []
    while (batch := queue.cut(now)) is not None:
        sizes.append(len(batch.fragments))
        queue.settle(batch.fragments, Fate.DELIVERED)
    return sizes


def test_a_learned_limit_falls_at_once_and_grows_again_by_and_by() -> None:
    queue = intake(events=10, size=10_000)
    assert sizes_cut(queue, 0.0) == [4]
    queue.limit_body(2100, 100.0)
    queue.limit_body(9000, 100.0)
    assert sizes_cut(queue, 100.0) == [2, 2]
    assert sizes_cut(queue, 159.0) == [2, 2]
    queue.limit_body(9000, 159.0)  # such an answer postpones the next test
    assert sizes_cut(queue, 160.0) == [2, 2]
    assert sizes_cut(queue, 219.0) == [4]
    queue.limit_body(0, 2000.0)
    assert sizes_cut(queue, 2000.0) == [1, 1, 1, 1]
    for test in range(1, 12):
        assert sizes_cut(queue, 2000.0 + 60 * test - 1) == [1, 1, 1, 1]
        sizes_cut(queue, 2000.0 + 60 * test)
    assert sizes_cut(queue, 2720.0) == [4]


def test_a_limit_that_was_learned_never_grows_beyond_that_of_the_settings() -> None:
    queue = Intake(QueueLimits(), BatchLimits(max_batch_bytes=3000, max_event_bytes=2000))
    queue.limit_body(2500, 0.0)
    assert sizes_cut(queue, 10_000.0) == [2, 2]
    assert sizes_cut(queue, 99_999.0) == [2, 2]


def test_a_queue_that_is_smaller_than_a_batch_is_ripe_when_it_is_full() -> None:
    queue = Intake(QueueLimits(max_queue_events=2), BatchLimits(max_batch_events=3))
    queue.admit(encoded(), SESSIONLESS, 0.0)
    assert queue.ripe_at() == 1.0
    queue.admit(encoded(), SESSIONLESS, 0.0)
    assert queue.ripe_at() == float("-inf")


def test_a_wake_up_that_fails_for_want_of_stack_is_made_up_for() -> None:
    queue = intake()
    woken: list[int] = []

    def wake() -> None:
        woken.append(queue.statistics().held)
        if len(woken) == 1:
            raise RecursionError

    queue.wake = wake
    for _ in range(3):
        assert queue.admit(encoded(), SESSIONLESS, 0.0)
    assert woken == [1, 2]


def test_a_wake_up_that_is_owed_is_not_forgotten_over_an_eviction() -> None:
    queue = intake(events=3, overflow="drop_oldest")
    woken: list[int] = []

    def wake() -> None:
        woken.append(queue.statistics().accepted)
        if len(woken) == 2:
            raise RecursionError

    queue.wake = wake
    for _ in range(6):
        assert queue.admit(encoded(), SESSIONLESS, 0.0)
    assert woken == [1, 3, 4]  # the first event, the third that fills a batch, and that again


@pytest.mark.parametrize(("overflow", "lost"), [("drop_newest", "refused"), ("drop_oldest", "dropped")])
def test_the_first_loss_that_the_log_has_not_told_of_wakes(overflow: str, lost: str) -> None:
    queue = intake(events=2, overflow=overflow)
    for _ in range(2):
        queue.admit(encoded(), SESSIONLESS, 0.0)
    woken: list[int] = []
    queue.wake = lambda: woken.append(sum(getattr(queue.statistics(), lost).values()))
    for _ in range(2):
        queue.is_told = True
        for _ in range(3):
            queue.admit(encoded(), SESSIONLESS, 0.0)
        assert not queue.is_told
    assert [loss - woken[0] for loss in woken] == [0, 3]


def test_a_wake_up_for_a_refusal_that_fails_for_want_of_stack_is_made_up_for() -> None:
    queue = intake()
    queue.admit(encoded(), SESSIONLESS, 0.0)
    woken: list[int] = []

    def wake() -> None:
        woken.append(queue.statistics().offered)
        if len(woken) == 1:
            raise RecursionError

    queue.wake = wake
    queue.is_told = True
    assert queue.refuse(Admission.FILTERED) is Admission.FILTERED
    for _ in range(2):
        assert queue.admit(encoded(), SESSIONLESS, 0.0)
    assert woken == [2, 3]


def test_the_first_eviction_that_somebody_is_to_be_told_of_wakes() -> None:
    queue = intake(events=4, overflow="drop_oldest")
    queue.ledger.keep_settlements = True
    woken: list[int] = []
    queue.wake = lambda: woken.append(len(queue.ledger.settlements))
    for _ in range(7):
        queue.admit(encoded(), SESSIONLESS, 0.0)
    assert woken == [0, 0, 1]
    assert len(queue.take_settlements()) == 3
    queue.admit(encoded(), SESSIONLESS, 0.0)
    assert woken == [0, 0, 1, 1]


# Limits of one event.


@pytest.mark.parametrize(("more", "admission"), [(-1, "accepted"), (0, "accepted"), (1, "too_large")])
@pytest.mark.parametrize("key", [SESSIONLESS, session()], ids=["sessionless", "session"])
def test_an_event_has_to_fit_into_a_body(key: GroupKey, more: int, admission: str) -> None:
    empty = len(OPENING + ENDING) if key is SESSIONLESS else len(OPENING + MIDDLE + key.properties) + 1
    queue = intake(batch_bytes=2000)
    assert queue.admit(encoded(2000 - empty + more), key, 0.0).value == admission


@pytest.mark.parametrize(("more", "admission"), [(-1, "accepted"), (0, "accepted"), (1, "too_large")])
@pytest.mark.parametrize("key", [SESSIONLESS, session(properties=20)], ids=["sessionless", "session"])
@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
def test_an_event_has_to_fit_into_the_queue(key: GroupKey, more: int, admission: str, overflow: str) -> None:
    queue = intake(size=500, overflow=overflow)
    queue.admit(encoded(2), SESSIONLESS, 0.0)
    properties = 0 if key is SESSIONLESS else 20
    if more <= 0 and overflow == "drop_newest":
        assert queue.admit(encoded(500 - properties + more), key, 0.0) is Admission.QUEUE_FULL
        settle_all(queue)
    assert queue.admit(encoded(500 - properties + more), key, 0.0).value == admission


def test_a_closing_is_taken_also_where_its_update_would_not_fit_into_a_body() -> None:
    queue = intake(batch_bytes=1024)
    assert queue.admit(ending(b"{}", 1100), session(), 0.0)


# Sessions.


def test_the_properties_of_a_session_are_charged_once_and_returned_with_the_last_of_its_events() -> None:
    queue = intake(batch_events=1)
    key = session(properties=100)
    held = []
    for _ in range(3):
        queue.admit(encoded(10), key, 0.0)
        held.append(queue.statistics().held_bytes)
    queue.admit(ending(b"c" * 50), key, 0.0)
    held.append(queue.statistics().held_bytes)
    assert held == [110, 120, 130, 190]
    while (batch := queue.cut(1e9)) is not None:
        queue.settle(batch.fragments, Fate.DELIVERED)
        held.append(queue.statistics().held_bytes)
    assert held[4:] == [180, 170, 0]  # the closing rode with the last


def test_a_session_of_which_all_was_evicted_is_charged_anew() -> None:
    queue = intake(events=1, overflow="drop_oldest")
    key = session(properties=100)
    for _ in range(5):
        assert queue.admit(encoded(10), key, 0.0)
        assert queue.statistics().held_bytes == 110
    settle_all(queue)
    assert queue.statistics().held_bytes == 0


def test_room_is_made_for_the_properties_too() -> None:
    queue = intake(size=200, overflow="drop_oldest")
    for number in range(20):
        queue.admit(encoded(10, str(number)), SESSIONLESS, 0.0)
    assert queue.admit(encoded(10, "new"), session(properties=100), 0.0)
    now = queue.statistics()
    assert (now.held_bytes, now.dropped) == (200, {"evicted": 11})


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
@pytest.mark.parametrize(("events", "size"), [(7, 10_000), (1000, 400)])
def test_the_bounds_hold_and_everything_is_returned_whatever_comes_and_goes(
    overflow: str, events: int, size: int
) -> None:
    queue = intake(events, size, overflow=overflow, batch_events=3)
    keys = [SESSIONLESS, *(session(str(number), 30 + number) for number in range(4))]
    away: list[Batch] = []
    for step in range(3000):
        key = keys[step * 7 % 5]
        if step % 11 == 0 and key is not SESSIONLESS:
            queue.admit(ending(b"c" * 7, 5), key, 0.0)
        else:
            queue.admit(encoded(1 + step % 40, str(step)), key, 0.0)
        if step % 3 == 0 and (batch := queue.cut(1e9)) is not None:
            away.append(batch)
        if step % 5 == 0 and away:
            queue.settle(away.pop(step % len(away)).fragments, Fate.DELIVERED)
        now = queue.statistics()
        assert adds_up(now)
        assert now.offered == step + 1
        assert now.held <= events
        assert 0 <= now.held_bytes <= size
    for batch in away:
        queue.settle(batch.fragments, Fate.UNCONFIRMED)
    settle_all(queue)
    now = queue.statistics()
    assert (now.held, now.held_bytes) == (0, 0)
    assert not any(queue._groups.knows(key) for key in keys[1:])


# The wake-up.


def test_the_worker_is_woken_once_for_a_transition_and_not_for_every_event() -> None:
    queue = intake(batch_events=5)
    woken: list[int] = []
    queue.wake = lambda: woken.append(queue.statistics().accepted)
    for _ in range(12):
        queue.admit(encoded(), SESSIONLESS, 0.0)
    assert woken == [1, 5]
    assert queue.cut(0.0) is not None
    assert queue.cut(0.0) is not None
    assert queue.cut(0.0) is None
    queue.admit(encoded(), SESSIONLESS, 0.0)
    assert woken == [1, 5]
    settle_all(queue)
    del woken[:]
    queue.admit(encoded(), SESSIONLESS, 0.0)
    assert woken == [14]


def test_a_refusal_wakes_nobody() -> None:
    queue = intake(events=1)
    queue.admit(encoded(), SESSIONLESS, 0.0)
    queue.wake = lambda: pytest.fail("woken for nothing")
    for _ in range(3):
        queue.admit(encoded(), SESSIONLESS, 0.0)
    queue.refuse(Admission.FILTERED)


def test_the_worker_is_woken_without_the_lock() -> None:
    queue = intake()
    free: list[bool] = []

    def other_thread() -> None:
        free.append(queue._lock.acquire(timeout=5))
        queue._lock.release()

    def wake() -> None:
        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()

    queue.wake = wake
    queue.admit(encoded(), SESSIONLESS, 0.0)
    queue.lower_barrier(queue.raise_barrier())
    assert free == [True, True]


# The short way.


def behind_another(**settings: Any) -> Intake:
    """A queue in which an event waits already: ten bytes, by the name of "first"."""
    queue = intake(**settings)
    queue.admit(encoded(10, "first"), SESSIONLESS, 5.0)
    return queue


def declines(queue: Intake, size: int = 10) -> bool:
    """Whether the short way is closed, and nothing changes when it is tried."""
    before, wake = queue.statistics(), queue.wake
    queue.wake = lambda: pytest.fail("woken for nothing")
    declined = not queue.take(encoded(size))
    queue.wake = wake
    return declined and queue.statistics() == before


def test_an_event_behind_another_is_taken_without_a_look() -> None:
    queue = behind_another()
    queue.wake = lambda: pytest.fail("woken for nothing")
    assert queue.take(encoded(20, "second"))
    now = queue.statistics()
    assert (now.accepted, now.held, now.held_bytes) == (2, 2, 30)
    assert queue.ripe_at() == 5.0 + BatchLimits().flush_interval
    batch = queue.cut(1e9)
    assert batch is not None
    assert [(each.event_id, each.seq, each.accepted_at) for each in batch.fragments] == [
        ("first", 1, 5.0),
        ("second", 2, 5.0),
    ]
    assert declines(queue)
    queue.settle(batch.fragments, Fate.DELIVERED)
    assert queue.statistics().held_bytes == 0


def test_the_first_event_wants_a_look() -> None:
    assert declines(intake())
    queue = intake()
    queue.admit(encoded(), session(), 0.0)  # its group is another
    assert declines(queue)


@pytest.mark.parametrize("batch_events", [2, 3, 10])
def test_the_event_that_fills_a_batch_wakes_the_worker_once(batch_events: int) -> None:
    queue = behind_another(batch_events=batch_events)
    woken: list[int] = []
    queue.wake = lambda: woken.append(queue.statistics().held)
    for _ in range(2 * batch_events):
        assert queue.take(encoded())
    assert woken == [batch_events]
    assert queue.ripe_at() == float("-inf")
    batch = queue.cut(0.0)
    assert batch is not None
    assert len(batch.fragments) == batch_events
    assert queue.ripe_at() == float("-inf")  # there is another full one


@pytest.mark.parametrize("size", [*range(60, 90), 200, 985, 992, 993, 994, 995])
def test_the_short_way_ends_before_a_body_is_full(size: int) -> None:
    """What makes it full by its bytes is looked at."""
    queue = behind_another(batch_bytes=1024, batch_events=100)
    woken: list[bool] = []
    queue.wake = lambda: woken.append(True)
    body = len(OPENING + ENDING) + 10
    while body + 1 + size < 1024:
        assert offer(queue, encoded(size))
        body += 1 + size
    assert not woken
    assert queue.ripe_at() == 5.0 + BatchLimits().flush_interval
    assert declines(queue, size)
    assert offer(queue, encoded(size))
    assert woken == [True]
    assert queue.ripe_at() == float("-inf")


@pytest.mark.parametrize("size", range(985, 997))
def test_the_second_event_of_a_body_is_looked_at_from_the_byte_that_fills_it(size: int) -> None:
    queue = behind_another(batch_bytes=1024, batch_events=3)
    woken: list[bool] = []
    queue.wake = lambda: woken.append(True)
    assert offer(queue, encoded(size))
    assert bool(woken) is (len(OPENING + ENDING) + 10 + 1 + size >= 1024)


def test_the_short_way_keeps_within_the_bounds() -> None:
    queue = behind_another(events=3)
    assert queue.take(encoded())
    assert queue.take(encoded())
    assert declines(queue)
    queue = behind_another(size=40)
    assert declines(queue, 31)
    assert queue.take(encoded(30))
    assert declines(queue, 1)


def test_the_short_way_is_closed_to_an_event_too_large_for_any_body() -> None:
    queue = behind_another(batch_bytes=1024, batch_events=2)
    assert queue.take(encoded())  # now a full batch stands in line, and there is no more to be filled
    largest = 1024 - len(OPENING + ENDING)
    assert declines(queue, largest + 1)
    assert queue.take(encoded(largest))


def test_the_short_way_is_closed_with_the_queue() -> None:
    queue = behind_another()
    queue.close()
    assert declines(queue)
    queue.reopen()
    assert queue.take(encoded())


def test_the_short_way_is_closed_while_nobody_attends() -> None:
    queue = intake()
    queue.is_unattended = True
    woken: list[bool] = []
    queue.wake = lambda: woken.append(True)
    for _ in range(3):
        assert offer(queue, encoded())
    assert len(woken) == 3
    queue.is_unattended = False
    queue.ripe_at()
    assert queue._owes_a_wake  # by the last of them
    assert declines(queue)
    assert queue.admit(encoded(), SESSIONLESS, 0.0)
    queue.ripe_at()  # as the worker does that was woken
    assert queue.take(encoded())


def test_a_wake_up_that_fails_is_made_up_for_by_the_next_event() -> None:
    queue = behind_another(batch_events=2)
    fails = True
    woken: list[bool] = []

    def wake() -> None:
        if fails:
            raise RecursionError
        woken.append(True)

    queue.wake = wake
    assert queue.take(encoded())
    fails = False
    assert declines(queue)
    assert queue.admit(encoded(), SESSIONLESS, 0.0)
    assert woken == [True]
    queue.ripe_at()
    assert queue.take(encoded())


def test_a_full_batch_is_found_by_the_next_event_where_the_stack_had_no_room_to_line_it_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = behind_another(batch_events=2)
    woken: list[bool] = []
    queue.wake = lambda: woken.append(True)

    def line_up_usual(_: Groups) -> None:
        raise RecursionError

    with monkeypatch.context() as patch:
        patch.setattr(Groups, "line_up_usual", line_up_usual)
        assert queue.take(encoded())
    assert queue.statistics().held == 2
    assert not queue._is_busy
    assert offer(queue, encoded())
    assert queue.ripe_at() == float("-inf")
    assert woken


def test_an_admission_holds_where_the_stack_has_no_room_for_what_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = intake()

    def free_places(_: Groups) -> tuple[int, int, bool]:
        raise RecursionError

    with monkeypatch.context() as patch:
        patch.setattr(Groups, "free_places", free_places)
        assert queue.admit(encoded(), SESSIONLESS, 0.0) is Admission.ACCEPTED
        assert declines(queue)
    assert offer(queue, encoded())
    assert queue.take(encoded())
    assert queue.statistics().held == 3


class NoMemory(deque[Fragment]):
    """A queue with no memory for one more."""

    def append(self, fragment: Fragment, /) -> None:
        raise MemoryError


def test_there_is_no_trace_of_an_event_that_no_memory_was_left_for() -> None:
    queue = behind_another()
    before, group = queue.statistics(), queue._groups.usual
    fragments, group.fragments = group.fragments, NoMemory(group.fragments)
    with pytest.raises(MemoryError):
        queue.take(encoded(17))
    group.fragments = fragments
    assert queue.statistics() == before
    assert queue._groups.queued_bytes == 10
    assert queue.take(encoded(20, "next"))
    assert settle_all(queue) == ["first", "next"]
    assert queue.statistics().held_bytes == 0


def test_what_waits_in_a_backlog_is_no_older_than_the_last_cut() -> None:
    """It counts as accepted then at the earliest: it may go too early by less than a cut is old."""
    queue = behind_another(batch_events=2)
    assert queue.take(encoded())
    for at in (6.0, 7.0):
        assert queue.cut(at) is not None
        queue.admit(encoded(), SESSIONLESS, at)
        assert queue.take(late := encoded())
        assert late.accepted_at == at
    assert queue.cut(8.0) is not None


class Twins(RuleBasedStateMachine):
    """Two queues that get the same, one of them by the short way where it is open."""

    @initialize(
        events=st.integers(1, 12),
        size=st.integers(300, 8000),
        batch_events=st.integers(1, 6),
        batch_bytes=st.integers(1024, 3000),
        overflow=st.sampled_from(["drop_newest", "drop_oldest"]),
    )
    def begin(self, **settings: Any) -> None:
        self.queues = [intake(**settings) for _ in range(2)]
        self.wakes = [0, 0]
        for number, queue in enumerate(self.queues):
            queue.ledger.keep_settlements = True
            queue.wake = functools.partial(self.wake, number)
        self.cut_batches: list[tuple[Batch, Batch]] = []
        self.keys = [SESSIONLESS, SESSIONLESS, session("one"), session("two")]
        self.now = 0.0

    def wake(self, number: int) -> None:
        self.wakes[number] += 1

    @rule(size=st.integers(1, 1100), where=st.integers(0, 3), wait=st.booleans())
    def push(self, size: int, where: int, wait: bool) -> None:
        short, long = self.queues
        key = self.keys[where]
        is_taken = key is SESSIONLESS and short.take(encoded(size, str(size)))
        if is_taken:
            answer = Admission.ACCEPTED
        else:
            answer = short.admit(encoded(size, str(size)), key, self.now, wait=wait)
        assert answer is long.admit(encoded(size, str(size)), key, self.now, wait=wait)

    @rule(later=st.sampled_from([0.0, 0.0, 10.0]))
    def cut(self, later: float) -> None:
        self.now += later
        one, other = (queue.cut(self.now) for queue in self.queues)
        if one is None or other is None:
            assert one is other
            return
        assert one.key is other.key
        assert [(each.seq, each.data) for each in one.fragments] == [
            (each.seq, each.data) for each in other.fragments
        ]
        self.cut_batches.append((one, other))

    @rule()
    def settle(self) -> None:
        if self.cut_batches:
            for queue, batch in zip(self.queues, self.cut_batches.pop(0), strict=True):
                queue.settle(batch.fragments, Fate.DELIVERED)

    @rule()
    def flush(self) -> None:
        for queue in self.queues:
            queue.lower_barrier(queue.raise_barrier())

    @rule(limit=st.integers(300, 2000))
    def limit_body(self, limit: int) -> None:
        for queue in self.queues:
            queue.limit_body(limit, self.now)

    @rule()
    def reopen(self) -> None:
        for queue in self.queues:
            queue.close()
            queue.reopen()

    @invariant()
    def are_alike(self) -> None:
        short, long = self.queues
        assert short.statistics() == long.statistics()
        assert self.wakes[0] == self.wakes[1]
        assert short._groups.queued_events == long._groups.queued_events
        assert short._groups.queued_bytes == long._groups.queued_bytes
        soon, exact = short.ripe_at(), long.ripe_at()
        assert (soon is None) is (exact is None)
        if soon is not None and exact is not None:
            assert soon <= exact


Twins.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestTwins = Twins.TestCase


# Threads.


def in_threads(*targets: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def guarded(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if failures:
        raise failures[0]


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
def test_eight_threads_push_while_one_settles_and_one_watches(overflow: str) -> None:
    queue = intake(events=500, size=20_000, overflow=overflow, batch_events=50)
    threads, each = 8, 5000
    keys = [session(str(number)) for number in range(4)]
    done = threading.Event()
    admissions: list[Counter[Admission]] = [Counter() for _ in range(threads)]
    delivered: list[str] = []
    left = threading.Semaphore(0)

    def push(number: int) -> None:
        for count in range(each):
            key = SESSIONLESS if count % 3 else keys[(count + number) % 4]
            admission = offer(queue, encoded(20 + count % 30, f"{number}-{count}"), key)
            admissions[number][admission] += 1
        left.release()

    def finish() -> None:
        for _ in range(threads):
            left.acquire()
        done.set()

    def settle() -> None:
        while not done.is_set() or queue.ripe_at() is not None:
            batch = queue.cut(1e9)
            if batch is not None:
                queue.settle(batch.fragments, Fate.DELIVERED)
                delivered.extend(fragment.event_id for fragment in batch.fragments)

    def watch() -> None:
        offered = 0
        while not done.is_set():
            now = queue.statistics()
            assert adds_up(now)
            assert now.offered >= offered
            assert 0 <= now.held <= 500
            assert 0 <= now.held_bytes <= 20_000
            offered = now.offered

    in_threads(*[lambda number=number: push(number) for number in range(threads)], settle, watch, finish)
    now = queue.statistics()
    total = sum(admissions, Counter[Admission]())
    assert now.offered == threads * each == total.total()
    assert now.accepted == total[Admission.ACCEPTED]
    assert now.delivered == len(delivered) == len(set(delivered))
    assert now.accepted == now.delivered + now.dropped.get("evicted", 0)
    assert (now.held, now.held_bytes) == (0, 0)
    assert adds_up(now)


# A push that interrupts a push.


def test_a_push_may_come_from_the_wake_up_of_another() -> None:
    queue = intake(events=3, overflow="drop_oldest", batch_events=1)
    depth = 0

    def wake() -> None:
        nonlocal depth
        if depth < 5:
            depth += 1
            queue.admit(encoded(event_id=f"inner {depth}"), session(str(depth)), 0.0)

    queue.wake = wake
    assert queue.admit(encoded(event_id="outer"), SESSIONLESS, 0.0)
    now = queue.statistics()
    assert (now.offered, now.held, now.dropped) == (6, 3, {"evicted": 3})
    assert settle_all(queue) == ["inner 3", "inner 4", "inner 5"]
    assert queue.statistics().held_bytes == 0


@pytest.mark.parametrize("verb", ["evict", "cut"])
def test_a_push_that_interrupts_evicts_nothing(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = intake(events=2, overflow="drop_oldest", batch_events=1)
    for name in ("a", "b"):
        queue.admit(encoded(event_id=name), SESSIONLESS, 0.0)
    inner: list[Admission] = []
    interrupted = getattr(Groups, verb)

    def interrupt(*arguments: Any) -> Any:
        if not inner:
            inner.append(queue.admit(encoded(event_id="inner"), SESSIONLESS, 0.0))
        return interrupted(*arguments)

    monkeypatch.setattr(Groups, verb, interrupt)
    if verb == "cut":
        assert queue.cut(0.0) is not None
    assert queue.admit(encoded(event_id="c"), SESSIONLESS, 0.0) is Admission.ACCEPTED
    assert inner == [Admission.QUEUE_FULL]
    assert queue.statistics().dropped == {"evicted": 1}


def test_an_event_that_there_is_no_memory_for_was_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = intake()

    def add(*arguments: Any) -> bool:
        raise MemoryError

    before = queue.statistics()
    with monkeypatch.context() as patch:
        patch.setattr(Groups, "add", add)
        with pytest.raises(MemoryError):
            queue.admit(encoded(), SESSIONLESS, 0.0)
    assert queue.statistics() == before
    assert queue.admit(encoded(), SESSIONLESS, 0.0) is Admission.ACCEPTED


def play(queue: Intake, key: GroupKey) -> int:
    """A bit of everything; return how many events were offered."""
    offered = 0
    for number in range(3):
        offer(queue, encoded(10, f"a{number}"), key)
        offer(queue, encoded(10, f"b{number}"))
        offered += 2
    batch = queue.cut(1e9)
    assert batch is not None
    offer(queue, ending(b"c" * 9, 10, "c"), key)
    queue.settle(batch.fragments, Fate.DROPPED, DropReason.REJECTED)
    barrier = queue.raise_barrier()
    while (batch := queue.cut(0.0)) is not None:
        if batch.closing is not None and batch.events:
            queue.put_back(batch.closing)
            queue.settle(batch.events, Fate.DELIVERED)
        else:
            queue.settle(batch.fragments, Fate.DELIVERED)
    queue.refuse(Admission.FILTERED)
    queue.lower_barrier(barrier)
    assert barrier.held == 0
    assert adds_up(queue.statistics())
    return offered + 2


def test_the_numbers_and_the_groups_are_touched_with_the_lock_only() -> None:
    guarded = {inspect.getfile(each) for each in (Ledger, Groups, BodyLimit)}
    touched: set[str] = set()
    without: set[str] = set()

    def look(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename in guarded:
            touched.add(frame.f_code.co_name)
            if not queue._lock._is_owned():  # type: ignore[attr-defined]  # as `threading.Condition` asks
                without.add(frame.f_code.co_name)

    for events in (4, 100):
        queue = intake(events, 1000, overflow="drop_oldest", batch_events=2)
        sys.setprofile(look)
        try:
            play(queue, session())
            queue.ripe_at()
            queue.limit_body(1000, 0.0)
            queue.ledger.keep_settlements = True
            play(queue, session())
            queue.take_settlements()
        finally:
            sys.setprofile(None)
    assert without == set()
    assert touched >= {"accept", "add", "cut", "evict", "lower", "lower_barrier", "put_back"}
    assert touched >= {"raise_barrier", "refuse", "ripe_at", "settle", "statistics", "take_settlements"}


class WatchedLock:
    """Notes whether the queue is open whenever it is taken and given back."""

    def __init__(self, queue: Intake) -> None:
        self.queue = queue
        self.seen: list[bool] = []

    def __enter__(self) -> None:
        self.seen.append(self.queue.is_open)

    def __exit__(self, *failure: object) -> None:
        self.seen.append(self.queue.is_open)


def test_the_queue_is_closed_and_opened_with_the_lock() -> None:
    queue = intake()
    queue._lock = lock = WatchedLock(queue)  # type: ignore[assignment]  # as much of one as is used here
    queue.close()
    queue.reopen()
    assert lock.seen == [True, False, False, True]


def interrupted_at(
    place: int, queue: Intake, key: GroupKey, own: GroupKey, pushes: int
) -> tuple[int, list[Admission]]:
    """Play, and push from within at the call or return with this number, twice so many events.

    Returns how many events were offered outside, and what became of those from within; there are none
    of these when so many calls were never made.
    """
    left = place
    inner: list[Admission] = []

    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        if left == 0:
            sys.setprofile(None)
            for target in (own, SESSIONLESS) * pushes:
                inner.append(offer(queue, encoded(10, "inner"), target))
                queue.statistics()
        left -= 1

    sys.setprofile(interrupt)
    try:
        return play(queue, key), inner
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
@pytest.mark.parametrize("same_session", [True, False])
@pytest.mark.parametrize("events", [4, 100])
@pytest.mark.parametrize("pushes", [1, 4])
@pytest.mark.parametrize("batch_events", [2, 3, 50])
def test_a_push_may_interrupt_whatever_the_same_thread_does(
    overflow: str, same_session: bool, events: int, pushes: int, batch_events: int
) -> None:
    """As from a `__del__` or a signal handler: at every call and every return, one after another."""
    for place in range(10_000):
        queue = intake(events, 1000, overflow=overflow, batch_events=batch_events)
        key = session()
        own = key if same_session else session("other")
        offered, inner = interrupted_at(place, queue, key, own, pushes)
        settle_all(queue)
        now = queue.statistics()
        assert adds_up(now), place
        assert now.offered == offered + len(inner), place
        assert (now.held, now.held_bytes) == (0, 0), place
        groups = queue._groups
        assert (groups.queued_events, groups.queued_bytes) == (0, 0), place
        assert {known.session_id: group.queued_bytes for known, group in groups._groups.items()} == {"": 0}
        if not inner:
            assert place > 100
            return
    pytest.fail("it never ended")


def test_what_nobody_is_told_about_does_not_pile_up() -> None:
    """With callbacks and without a worker, a thousand evictions keep no more than the queue may hold."""
    intake = Intake(QueueLimits(max_queue_events=10, overflow="drop_oldest"), BatchLimits())
    intake.ledger.keep_settlements = True
    for number in range(1010):
        assert intake.admit(Fragment(b"{}", str(number)), SESSIONLESS, 0.0)
    assert intake.statistics().dropped == {"evicted": 1000}
    assert intake.statistics().callback_errors == 990
    assert [told.event_ids for told in intake.take_settlements()] == [(str(n),) for n in range(990, 1000)]
