"""Which group is ripe, and how a batch is cut. Bodies are measured by an oracle of this file's own."""

import collections
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyhive_batcher.config import BatchLimits
from honeyhive_batcher.core import batching
from honeyhive_batcher.core.batching import Groups
from honeyhive_batcher.core.fragment import SESSIONLESS, Closing, Fragment, GroupKey
from honeyhive_batcher.core.model import Batch, Trigger
from honeyhive_batcher.core.wire import build_request

NOW = float("-inf")


class Queue:
    """Groups with a hand that numbers what is added, as the ledger does."""

    def __init__(self, events: int = 10, size: int = 10_000, interval: float = 1.0) -> None:
        limits = BatchLimits(max_batch_events=events, max_batch_bytes=size, flush_interval=interval)
        self.groups = Groups(limits)
        self.seq = 0

    def add(self, key: GroupKey = SESSIONLESS, *, at: float = 0.0, data: bytes = b"{}") -> Fragment:
        self.seq += 1
        fragment = Fragment(data, f"e{self.seq}", key, self.seq, at)
        self.news = self.groups.add(fragment)
        return fragment

    def close(self, key: GroupKey, *, at: float = 0.0, closing: bytes = b"{}") -> Fragment:
        self.seq += 1
        fragment = Closing(b"{}", key.session_id, key, self.seq, at, closing=closing)
        self.news = self.groups.add(fragment)
        return fragment

    def flush(self) -> None:
        self.groups.flush_through = self.seq

    def cut(self, now: float = 0.0) -> Batch:
        batch = self.groups.cut(now)
        assert batch is not None
        return batch

    def settle(self, batch: Batch) -> int:
        return self.groups.settled(batch.key, len(batch.fragments))

    def cut_all(self, now: float = 0.0) -> list[Batch]:
        batches = []
        while (batch := self.groups.cut(now)) is not None:
            batches.append(batch)
        return batches


def session(name: str = "s", properties: bytes = b'{"session_id":"s"}') -> GroupKey:
    return GroupKey(session_id=name, properties=properties)


def body_of(batch: Batch) -> bytes:
    """The body as section 1 of the API description has it, put together without the code under test."""
    body = b'{"model_events":[' + b",".join(
        fragment.data for fragment in batch.fragments if not fragment.closing
    )
    if batch.key is SESSIONLESS:
        return body + b"]}"
    closing = [fragment.closing for fragment in batch.fragments if fragment.closing]
    properties = closing[0] if closing else batch.key.properties
    return body + b'],"is_single_session":true,"session_properties":' + properties + b"}"


def seqs(batch: Batch) -> list[int]:
    return [fragment.seq for fragment in batch.fragments]


# Ripe.


def test_an_empty_queue_is_never_ripe() -> None:
    queue = Queue()
    assert queue.groups.ripe_at() is None
    assert queue.groups.cut(1e9) is None
    assert queue.groups.evict() is None


@pytest.mark.parametrize(("now", "ripe"), [(5.999, False), (6.0, True), (6.001, True)])
def test_the_oldest_event_waits_for_the_interval_and_no_longer(now: float, ripe: bool) -> None:
    queue = Queue(interval=1.0)
    queue.add(at=5.0)
    queue.add(at=5.9)
    assert queue.groups.ripe_at() == 6.0
    batch = queue.groups.cut(now)
    assert (batch is not None) is ripe
    if batch is not None:
        assert seqs(batch) == [1, 2]
        assert batch.trigger is Trigger.INTERVAL


def test_without_an_interval_everything_is_ripe_at_once() -> None:
    queue = Queue(interval=0.0)
    queue.add(at=5.0)
    assert queue.groups.ripe_at() == 5.0
    assert seqs(queue.cut(5.0)) == [1]


@pytest.mark.parametrize(("events", "ripe"), [(9, False), (10, True), (11, True)])
def test_a_group_of_so_many_events_is_ripe(events: int, ripe: bool) -> None:
    queue = Queue(events=10)
    for _ in range(events):
        queue.add()
    assert (queue.groups.ripe_at() == NOW) is ripe
    batch = queue.groups.cut(0.5)
    assert (batch is not None) is ripe
    if batch is not None:
        assert seqs(batch) == list(range(1, 11))
        assert batch.trigger is Trigger.FULL
        assert queue.groups.queued_events == events - 10


@pytest.mark.parametrize("key", [SESSIONLESS, session()], ids=["sessionless", "session"])
@pytest.mark.parametrize(("more", "ripe"), [(-1, False), (0, True), (1, True)])
def test_a_group_of_so_many_bytes_is_ripe(key: GroupKey, more: int, ripe: bool) -> None:
    empty = len(body_of(Batch(key=key, fragments=(Fragment(b"", "", key, 1, 0.0),))))
    queue = Queue(size=2000)
    queue.add(key, data=b"x" * 900)
    queue.add(key, data=b"x" * (2000 - empty - 901 + more))
    assert (queue.groups.ripe_at() == NOW) is ripe


@pytest.mark.parametrize("key", [SESSIONLESS, session()], ids=["sessionless", "session"])
@pytest.mark.parametrize(("more", "events"), [(-1, 3), (0, 3), (1, 2)])
def test_a_body_is_filled_to_the_byte(key: GroupKey, more: int, events: int) -> None:
    empty = len(body_of(Batch(key=key, fragments=(Fragment(b"", "", key, 1, 0.0),))))
    queue = Queue(size=3000)
    for _ in range(2):
        queue.add(key, data=b"x" * 900)
    queue.add(key, data=b"x" * (3000 - empty - 1802 + more))
    queue.add(key, data=b"x")
    queue.flush()
    batch = queue.cut()
    assert len(batch.fragments) == events
    assert len(body_of(batch)) == (3000 + more if events == 3 else empty + 1801)
    assert build_request(batch).body == body_of(batch)


def test_what_was_cut_fills_its_group_no_more() -> None:
    queue = Queue(size=1200)
    for _ in range(3):
        queue.add(data=b"x" * 500)
    assert len(queue.cut().events) == 2
    assert queue.groups.ripe_at() == 1.0
    queue.flush()
    queue.cut()
    assert queue.groups._groups[SESSIONLESS].queued_bytes == 0


def test_an_event_that_alone_is_larger_than_a_body_is_cut_alone() -> None:
    """A server may have taught us a smaller body than the settings allow."""
    queue = Queue(size=2000)
    queue.groups.body.max_bytes = 100
    for _ in range(3):
        queue.add(data=b"x" * 200)
    queue.add(data=b"x")
    queue.flush()
    assert [seqs(batch) for batch in queue.cut_all()] == [[1], [2], [3], [4]]


@pytest.mark.parametrize(("limit", "events"), [(118, 1), (119, 1), (120, 2), (121, 2)])
def test_a_body_that_was_learned_to_be_too_large_is_not_cut_again(limit: int, events: int) -> None:
    queue = Queue(size=2000)
    for _ in range(4):
        queue.add(data=b"x" * 50)
    queue.groups.body.max_bytes = limit
    queue.flush()
    batches = queue.cut_all()
    assert {len(batch.fragments) for batch in batches} == {events}
    assert {len(body_of(batch)) for batch in batches} == {19 + 50 * events + events - 1}


def test_a_flush_makes_ripe_what_was_there_and_takes_along_what_came_after() -> None:
    queue = Queue(events=3)
    queue.add()
    queue.add()
    queue.flush()
    queue.add(at=0.0)
    other = session()
    queue.add(other)
    assert queue.groups.ripe_at() == NOW
    batch = queue.cut()
    assert seqs(batch) == [1, 2, 3]
    assert queue.groups.cut(0.0) is None
    assert queue.groups.ripe_at() == 1.0


def test_a_batch_says_what_made_it_be_cut() -> None:
    queue = Queue(events=2)
    for key in (session("a"), session("b"), session("c")):
        queue.add(key, at=float(key.session_id == "c"))
    queue.add(key)
    queue.groups.flush_through = 1
    triggers = {batch.key.session_id: batch.trigger for batch in queue.cut_all(now=1.0)}
    assert triggers == {"a": Trigger.FLUSH, "b": Trigger.INTERVAL, "c": Trigger.FULL}


def test_a_batch_was_flushed_if_its_oldest_event_was() -> None:
    queue = Queue()
    queue.add()
    queue.flush()
    queue.add()
    assert queue.cut().trigger is Trigger.FLUSH


def test_news_is_the_first_event_and_a_group_that_becomes_full() -> None:
    queue = Queue(events=3)
    news = []
    for _ in range(7):
        queue.add()
        news.append(queue.news)
    assert news == [True, False, True, False, False, False, False]
    queue.cut()
    queue.cut()
    queue.cut(1.0)
    queue.add()
    assert queue.news


def test_a_group_that_becomes_full_again_after_a_cut_is_news() -> None:
    queue = Queue(events=3)
    for _ in range(4):
        queue.add()
    queue.cut()
    news = []
    for _ in range(2):
        queue.add()
        news.append(queue.news)
    assert news == [False, True]


# Order and fairness.


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(2, 300), st.sampled_from(["", "", "", "cut", "evict"])),
        max_size=80,
    ),
    st.integers(1, 7),
    st.integers(1024, 1500),
)
def test_every_batch_is_of_one_group_in_order_and_within_its_limits(
    steps: list[tuple[int, int, str]], events: int, size: int
) -> None:
    queue = Queue(events=events, size=size)
    keys = [SESSIONLESS, *(session(str(number)) for number in range(3))]
    queued: dict[GroupKey, list[Fragment]] = collections.defaultdict(list)

    def check(batch: Batch | None) -> None:
        if batch is None:
            return
        assert 1 <= len(batch.fragments) <= events
        assert len(body_of(batch)) <= size
        assert build_request(batch).body == body_of(batch)
        expected = queued[batch.key]
        assert list(batch.fragments) == expected[: len(batch.fragments)]
        del expected[: len(batch.fragments)]
        queue.settle(batch)

    for which, length, then in steps:
        key = keys[which]
        queued[key].append(queue.add(key, data=b"x" * length))
        if then == "cut":
            check(queue.groups.cut(0.5))
        elif then == "evict":
            evicted = queue.groups.evict()
            assert evicted is not None
            assert evicted.seq == min(fragment.seq for waiting in queued.values() for fragment in waiting)
            assert queued[evicted.key].pop(0) is evicted
            queue.groups.evicted(evicted.key)
        left = [fragment for waiting in queued.values() for fragment in waiting]
        assert queue.groups.queued_events == len(left)
        assert queue.groups.queued_bytes == sum(fragment.size for fragment in left)
        for key, waiting in queued.items():
            if key is not SESSIONLESS:
                assert queue.groups.knows(key) is bool(waiting)
        if left:
            assert queue.groups.ripe_at() is not None
    queue.flush()
    for batch in queue.cut_all():
        check(batch)
    assert not any(queued.values())
    assert queue.groups.queued_events == queue.groups.queued_bytes == 0


def test_many_small_sessions_and_one_busy_group_take_turns() -> None:
    queue = Queue(events=10)
    for number in range(300):
        queue.add(session(str(number)))
    for _ in range(5000):
        queue.add()
    cuts = [queue.cut(2.0).key is SESSIONLESS for _ in range(600)]
    for place in range(599):
        assert cuts[place : place + 2] in ([True, False], [False, True])
    assert sum(cuts) == 300


def test_busy_sessions_are_served_in_turn() -> None:
    queue = Queue(events=2)
    keys = [session(str(number)) for number in range(20)]
    for _ in range(10):
        for key in keys:
            queue.add(key)
    for _ in range(5):
        served = [queue.cut(0.5).key for _ in keys]
        assert len(set(served)) == len(keys)


def test_an_aged_event_waits_only_for_what_is_older_than_it() -> None:
    queue = Queue(events=2)
    lonely = session()
    for _ in range(10):
        queue.add()
    queue.add(lonely)
    served = []
    for _ in range(7):
        for _ in range(10):
            queue.add()  # the busy group never ends
        served.append(queue.cut(1.0).key)
    assert served.index(lonely) <= 6


# Eviction.


def test_the_oldest_queued_event_is_evicted_whatever_its_group() -> None:
    queue = Queue()
    keys = [session("a"), SESSIONLESS, session("b"), session("a2"), SESSIONLESS]
    fragments = [queue.add(key) for key in keys]
    for fragment in fragments:
        assert queue.groups.evict() is fragment
        queue.groups.evicted(fragment.key)
    assert queue.groups.evict() is None
    assert queue.groups.queued_events == queue.groups.queued_bytes == 0


def test_what_was_cut_is_never_evicted() -> None:
    queue = Queue(events=2)
    for _ in range(3):
        queue.add()
    cut = queue.cut()
    evicted = queue.groups.evict()
    assert evicted is not None
    assert evicted.seq == 3
    assert evicted not in cut.fragments
    assert queue.groups.evict() is None


def test_a_closing_is_not_evicted() -> None:
    queue = Queue()
    key = session()
    closing = queue.close(key)
    event = queue.add()
    assert queue.groups.evict() is event
    assert queue.groups.evict() is None
    queue.flush()
    assert queue.cut().fragments == (closing,)


def test_an_event_is_evicted_although_the_closing_of_its_session_is_queued() -> None:
    queue = Queue()
    key = session()
    event = queue.add(key)
    closing = queue.close(key)
    assert queue.groups.evict() is event
    assert queue.groups.evict() is None
    queue.flush()
    assert queue.cut().fragments == (closing,)


def test_a_group_that_was_full_before_an_eviction_is_not_cut_as_full() -> None:
    queue = Queue(events=3)
    for _ in range(3):
        queue.add()
    queue.groups.evict()
    assert queue.groups.ripe_at() == 1.0
    assert queue.groups.cut(0.5) is None
    queue.add()
    assert queue.groups.ripe_at() == NOW


# Closings.


def test_a_closing_rides_with_the_last_batch() -> None:
    queue = Queue(events=2)
    key = session()
    queue.add(key)
    queue.add(key)
    queue.add(key)
    queue.close(key)
    queue.flush()
    assert [seqs(batch) for batch in queue.cut_all()] == [[1, 2], [3, 4]]


def test_a_closing_is_no_event_of_its_batch() -> None:
    queue = Queue(events=2)
    key = session()
    queue.add(key)
    queue.add(key)
    closing = queue.close(key)
    batch = queue.cut()
    assert (len(batch.events), batch.closing) == (2, closing)


@pytest.mark.parametrize(("more", "rides"), [(-1, True), (0, True), (1, False)])
def test_a_closing_rides_only_where_its_properties_fit(more: int, rides: bool) -> None:
    queue = Queue(size=2000)
    key = session()
    event = queue.add(key, data=b"x" * 900)
    empty = len(body_of(Batch(key=key, fragments=(event,)))) - len(key.properties)
    closing = queue.close(key, closing=b"x" * (2000 - empty + more))
    queue.flush()
    batch = queue.cut()
    assert (closing in batch.fragments) is rides
    assert len(body_of(batch)) == (2000 + more if rides else empty + len(key.properties))


def test_a_closing_that_does_not_fit_rides_no_better_with_an_event_behind_it() -> None:
    queue = Queue(size=1200)
    key = session()
    queue.add(key)
    closing = queue.close(key, closing=b"c" * 1200)
    queue.add(key)
    queue.flush()
    first = queue.cut()
    assert seqs(first) == [1]
    queue.settle(first)
    assert queue.cut().fragments == (closing,)


def test_a_closing_alone_waits_until_the_events_of_its_session_are_settled() -> None:
    queue = Queue(events=1)
    key = session()
    queue.add(key)
    queue.add(key)
    first, second = queue.cut(5.0), queue.cut(5.0)
    closing = queue.close(key)
    queue.flush()
    for batch in (first, second):
        assert queue.groups.ripe_at() is None
        assert queue.groups.cut(1e9) is None
        assert queue.settle(batch) == 0
    assert queue.groups.ripe_at() == NOW
    assert queue.cut().fragments == (closing,)


def test_other_groups_do_not_wait_for_a_closing() -> None:
    queue = Queue(events=2)
    key = session()
    queue.add(key)
    first = queue.cut(5.0)
    queue.close(key)
    queue.add()
    queue.add()
    assert queue.cut().key is SESSIONLESS
    queue.settle(first)
    assert queue.cut(5.0).key is key


def test_a_full_group_behind_a_closing_that_waits_is_cut_after_it() -> None:
    """A thread may push to a session that another one closes."""
    queue = Queue(events=2)
    key = session()
    queue.add(key)
    first = queue.cut(5.0)
    queue.close(key)
    for _ in range(4):
        queue.add(key)
    assert queue.groups.cut(5.0) is None
    queue.settle(first)
    closing = queue.cut(5.0)
    assert seqs(closing) == [2]
    assert [seqs(batch) for batch in queue.cut_all(5.0)] == [[3, 4], [5, 6]]


def test_a_closing_that_is_put_back_waits_for_the_batch_it_was_to_ride_with() -> None:
    queue = Queue()
    key = session()
    queue.add(key)
    queue.add(key)
    closing = queue.close(key)
    queue.flush()
    batch = queue.cut()
    assert batch.closing is closing
    queue.groups.put_back(closing)
    assert (queue.groups.queued_events, queue.groups.queued_bytes) == (0, 0)  # closings do not count
    assert queue.groups.cut(1e9) is None
    assert queue.groups.settled(key, 1) == 0
    assert queue.groups.cut(1e9) is None
    assert queue.groups.settled(key, 1) == 0
    assert queue.cut().fragments == (closing,)
    queue.groups.settled(key, 1)
    assert not queue.groups.knows(key)


# Nothing is left behind.


def internal_sizes(groups: Groups) -> tuple[int, int, int]:
    return len(groups._groups), len(groups._oldest), len(groups._full)


def test_ten_thousand_sessions_come_and_go_and_leave_nothing() -> None:
    queue = Queue(events=2)
    for number in range(10_000):
        key = session(str(number))
        queue.add(key)
        queue.add(key)
        queue.close(key)
        if number % 2:
            queue.groups.evict()
        queue.flush()
        for batch in queue.cut_all():
            queue.settle(batch)
    assert queue.groups.ripe_at() is None
    assert set(queue.groups._groups) == {SESSIONLESS}
    assert max(internal_sizes(queue.groups)) < 100


@pytest.mark.parametrize("interval", [1.0, 1e9])
def test_many_cuts_under_a_group_that_is_not_ripe_leave_nothing(interval: float) -> None:
    queue = Queue(events=1, interval=interval)
    limits = Queue(events=2, interval=interval)
    waiting = session()
    limits.add(waiting)
    for _ in range(10_000):
        limits.add()
        limits.add()
        limits.add()
        limits.cut()
        queue.add()
        queue.cut()
        if limits.groups.queued_events > 50:
            limits.cut()
    for groups in (queue.groups, limits.groups):
        assert max(internal_sizes(groups)) < 200
    limits.flush()
    assert waiting in {batch.key for batch in limits.cut_all()}


def test_a_group_is_ordered_by_age_once_however_many_of_its_events_wait() -> None:
    queue = Queue(events=1000)
    for _ in range(500):
        queue.add()
    assert internal_sizes(queue.groups) == (1, 1, 0)


def test_a_group_that_is_cut_by_age_while_it_stands_in_line_stands_there_once() -> None:
    queue = Queue(events=2)
    for key in (session("older"), session("newer")):
        for _ in range(200):
            queue.add(key)
    queue.flush()
    for _ in range(150):
        queue.cut()
        assert internal_sizes(queue.groups)[2] <= 2


def test_groups_that_are_cut_in_another_order_than_they_became_full_stand_in_line_once() -> None:
    queue = Queue(events=2)
    older, newer = session("older"), session("newer")
    queue.add(older)
    for key in (newer, older):
        for _ in range(200):
            queue.add(key)
    queue.flush()
    for _ in range(150):
        queue.cut()
        assert internal_sizes(queue.groups)[2] <= 2


def test_a_cut_looks_at_few_groups_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def counted(seq: int, group: Any) -> bool:
        nonlocal looks
        looks += 1
        return is_current(seq, group)

    is_current = batching._is_current
    monkeypatch.setattr(batching, "_is_current", counted)
    queue = Queue(events=2)
    for number in range(1000):
        queue.add(session(str(number)), at=1e9)
    for cuts in range(1, 5001):
        queue.add()
        queue.add()
        assert queue.cut().key is SESSIONLESS
        assert looks < 1000 + 8 * cuts
        assert internal_sizes(queue.groups)[1] <= 2 * 1001 + 66


def test_many_evictions_leave_nothing() -> None:
    queue = Queue(events=5)
    keys = [session(str(number)) for number in range(3)]
    for number in range(10_000):
        queue.add(keys[number % 3])
        if queue.groups.queued_events > 6:
            evicted = queue.groups.evict()
            assert evicted is not None
            queue.groups.evicted(evicted.key)
    assert max(internal_sizes(queue.groups)) < 200


def test_a_group_that_is_full_again_and_again_stands_in_line_once() -> None:
    queue = Queue(events=2)
    for _ in range(1000):
        queue.add()
        queue.add()
        queue.groups.evict()
    assert len(queue.groups._full) <= 1


def test_a_group_tells_what_it_was_charged_when_it_vanishes() -> None:
    queue = Queue()
    key = session()
    fragment = Fragment(b"{}", "e", key, 1, 0.0)
    queue.groups.add(fragment, 18)
    queue.groups.flush_through = 1
    batch = queue.cut()
    assert json.loads(body_of(batch))["session_properties"] == {"session_id": "s"}
    assert queue.settle(batch) == 18
    assert not queue.groups.knows(key)


def test_a_group_that_was_charged_nothing_returns_nothing() -> None:
    queue = Queue()
    queue.add(session())
    queue.flush()
    assert queue.settle(queue.cut()) == 0
