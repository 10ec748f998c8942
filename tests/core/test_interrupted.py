"""The books close, and the queue goes on, after a Ctrl-C that struck while an event changed hands."""

from typing import Any
from unittest import mock

import pytest

from honeyhive_batcher.core.batching import Groups
from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment
from honeyhive_batcher.core.group import Group
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.ledger import Ledger
from honeyhive_batcher.core.model import Attempt, Phase, Response
from honeyhive_batcher.core.schedule import Schedule
from tests.core.rig import Rig, Sent, answer, event, named, session


def strikes(*_: object) -> None:
    raise KeyboardInterrupt


def healthy(sent: Sent) -> Response:
    return sent.all_named


def test_what_was_in_the_hands_of_a_reply_is_unconfirmed_at_the_end() -> None:
    rig = Rig(max_batch_events=2)
    rig.push("a", "b", "c")
    rig.flush()
    rig.poll()
    with mock.patch.object(Intake, "settle", strikes), pytest.raises(KeyboardInterrupt):
        rig.engine.complete(next(iter(rig.engine.in_flight)), named("a", "b"), 0.0)
    assert rig.statistics.held == 3
    rig.engine.abandon()
    assert rig.with_fate("unconfirmed") == {"a", "b", "c"}
    rig.assert_settled()


def test_the_other_pieces_of_a_batch_are_found_when_a_reply_to_one_was_interrupted() -> None:
    rig = Rig(max_batch_events=8)
    rig.push(*"abcdefgh")
    rig.flush()
    rig.poll()
    rig.engine.complete(next(iter(rig.engine.in_flight)), answer(400), 0.0)
    rig.poll()
    with mock.patch.object(Intake, "settle", strikes), pytest.raises(KeyboardInterrupt):
        rig.engine.complete(next(iter(rig.engine.in_flight)), answer(200), 0.0)
    rig.engine.abandon()
    assert rig.with_fate("unconfirmed") == set("abcd")
    assert rig.with_fate("shutdown") == set("efgh")
    rig.assert_settled()


def test_a_reply_that_was_interrupted_after_all_is_settled_changes_nothing_at_the_end() -> None:
    rig = Rig()
    rig.push("a")
    rig.flush()
    rig.poll()
    settle = Intake.settle

    def settles_and_strikes(intake: Intake, *arguments: object) -> None:
        settle(intake, *arguments)  # type: ignore[arg-type]  # passed on as they are
        raise KeyboardInterrupt

    with mock.patch.object(Intake, "settle", settles_and_strikes), pytest.raises(KeyboardInterrupt):
        rig.engine.complete(next(iter(rig.engine.in_flight)), answer(200), 0.0)
    rig.engine.abandon()
    assert rig.with_fate("delivered") == {"a"}
    rig.assert_settled()


def test_what_is_nowhere_is_counted_as_unconfirmed_and_a_callback_is_missed() -> None:
    rig = Rig()
    rig.push("a", "b", "c")
    flush = rig.intake.raise_barrier()
    with mock.patch.object(Groups, "_line_up", strikes), pytest.raises(KeyboardInterrupt):
        rig.engine.poll(0.0)
    rig.engine.abandon()
    now = rig.statistics
    assert (now.unconfirmed, now.held, now.held_bytes, now.callback_errors) == (3, 0, 0, 1)
    assert (flush.held, flush.unconfirmed) == (0, 3)


def test_with_nothing_astray_the_books_close_without_a_word() -> None:
    book = Ledger(max_events=10, max_bytes=100)
    book.keep_settlements = True
    book.accept(10)
    book.take_back(10)
    book.reconcile(set(), 0, ())
    now = book.statistics()
    assert (now.accepted, now.unconfirmed, now.callback_errors) == (0, 0, 0)


@pytest.mark.parametrize("place", ["_line_up", "is_full"])
def test_after_a_cut_that_was_interrupted_the_rest_is_cut_in_order(place: str) -> None:
    rig = Rig(max_batch_events=2)
    rig.push(*"abcdefg")
    with (
        mock.patch.object(Group if place == "is_full" else Groups, place, strikes),
        pytest.raises(KeyboardInterrupt),
    ):
        rig.engine.poll(10.0)
    rig.engine.recover()
    rig.now = 10.0
    rig.serve(healthy)
    rest = [("c", "d"), ("e", "f"), ("g",)]
    assert [sent.ids for sent in rig.sent] == ([("a", "b"), *rest] if place == "is_full" else rest)
    rig.engine.abandon()
    assert rig.statistics.unconfirmed == (0 if place == "is_full" else 2)
    assert rig.statistics.held == 0


def test_a_queue_that_is_put_in_order_evicts_and_fills_as_before() -> None:
    rig = Rig(max_queue_events=4, max_batch_events=3, overflow="drop_oldest")
    one = session("one")
    rig.push("a", "b", key=one)
    rig.push("c", "d")
    rig.engine.recover()
    rig.push("e", "f")
    assert rig.with_fate("evicted") == {"a", "b"}
    rig.serve(healthy)
    assert [sent.ids for sent in rig.sent] == [("c", "d", "e"), ("f",)]
    rig.assert_settled()


def test_a_push_that_is_interrupted_when_it_is_queued_has_been_accepted() -> None:
    rig = Rig()
    add = Groups.add

    def adds_and_strikes(groups: Groups, *arguments: object) -> None:
        add(groups, *arguments)  # type: ignore[arg-type]  # passed on as they are
        raise KeyboardInterrupt

    with mock.patch.object(Groups, "add", adds_and_strikes), pytest.raises(KeyboardInterrupt):
        rig.push("a")
    with mock.patch.object(Groups, "add", strikes), pytest.raises(KeyboardInterrupt):
        rig.push("b")
    now = rig.statistics
    assert (now.accepted, now.held) == (1, 1)
    rig.serve(healthy)
    assert rig.statistics.delivered == 1
    assert rig.fate("a") == "delivered"


def test_a_push_that_is_interrupted_before_its_group_is_lined_up_is_sent_all_the_same() -> None:
    rig = Rig()

    def strikes_once(*arguments: Any) -> None:
        patch.stop()
        strikes(*arguments)

    patch = mock.patch("heapq.heappush", strikes_once)
    patch.start()
    with pytest.raises(KeyboardInterrupt):
        rig.push("a")
    assert rig.engine.wake_at() == 1.0
    assert not rig._is_woken
    rig.push("b")
    assert rig._is_woken
    rig.serve(healthy)
    assert [sent.ids for sent in rig.sent] == [("a", "b")]


def test_a_push_that_was_never_queued_is_not_taken_for_another_of_its_group() -> None:
    rig = Rig()
    key = session("one")
    rig.push("a", key=key)
    with mock.patch.object(Groups, "add", strikes), pytest.raises(KeyboardInterrupt):
        rig.push("b", key=key)
    assert rig.statistics.accepted == 1
    add = Groups.add

    def adds_and_strikes(groups: Groups, *arguments: object) -> None:
        add(groups, *arguments)  # type: ignore[arg-type]  # passed on as they are
        raise KeyboardInterrupt

    with mock.patch.object(Groups, "add", adds_and_strikes), pytest.raises(KeyboardInterrupt):
        rig.push("c", key=key)
    assert rig.statistics.accepted == 2
    rig.serve(healthy)
    assert rig.with_fate("delivered") == {"a", "c"}


def test_a_push_with_no_memory_for_its_event_takes_no_room() -> None:
    rig = Rig()

    def fails(*_: object) -> None:
        raise MemoryError

    with mock.patch("honeyhive_batcher.core.batching.Group", fails), pytest.raises(MemoryError):
        rig.push("a", key=session("one"))
    now = rig.statistics
    assert (now.accepted, now.held, now.held_bytes) == (0, 0, 0)


def test_a_group_whose_events_are_away_outlives_a_push_that_was_never_queued() -> None:
    rig = Rig()
    key = session("one")
    rig.push("a", key=key)
    rig.flush()
    attempt = rig.poll_one()
    with mock.patch.object(Groups, "add", strikes), pytest.raises(KeyboardInterrupt):
        rig.push("b", key=key)
    rig.reply(attempt, named("a"))
    assert rig.fate("a") == "delivered"
    assert rig.statistics.held_bytes == 0


def test_a_closed_book_counts_a_flush_that_waits_for_what_is_astray() -> None:
    book = Ledger(max_events=10, max_bytes=100)
    book.accept(10)
    barrier = book.raise_barrier()
    book.reconcile(set(), 0, ())
    assert (barrier.held, barrier.unconfirmed) == (0, 1)


@pytest.mark.parametrize("is_told", [True, False])
def test_one_more_callback_is_missed_for_what_is_astray_if_there_is_one(*, is_told: bool) -> None:
    book = Ledger(max_events=10, max_bytes=100)
    book.callback_errors = 3
    book.keep_settlements = is_told
    book.accept(10)
    book.reconcile(set(), 0, ())
    assert book.statistics().callback_errors == 3 + is_told


def test_what_waits_already_for_its_next_attempt_is_held() -> None:
    rig = Rig()
    rig.push("a")
    rig.flush()
    attempt = rig.poll_one()
    wait = Schedule.wait

    def waits_and_strikes(schedule: Schedule, attempt: Attempt) -> None:
        wait(schedule, attempt)
        raise KeyboardInterrupt

    with mock.patch.object(Schedule, "wait", waits_and_strikes), pytest.raises(KeyboardInterrupt):
        rig.engine.complete(attempt, answer(503), rig.now)
    rig.engine.recover()
    assert (rig.statistics.held, rig.statistics.unconfirmed) == (1, 0)
    rig.serve(healthy)
    rig.assert_settled()
    assert rig.fate("a") == "delivered"


def _state(groups: Groups) -> object:
    """All numbers and lines of a queue; entries that are out of date say nothing."""
    return (
        groups.queued_events,
        groups.queued_bytes,
        groups._session_events,
        groups._session_bytes,
        {
            key: (group.away, group.charged, group.queued_bytes, group.stands_in_line, list(group.fragments))
            for key, group in groups._groups.items()
            if group.fragments or key is not SESSIONLESS  # an empty group of those without a session is none
        },
        {seq for seq, group in groups._oldest if group.fragments and group.fragments[0].seq == seq},
        [group.key for group in groups._full],
    )


def test_every_number_and_line_of_the_queue_is_put_in_order() -> None:
    rig = Rig(max_batch_events=3)
    groups = rig.intake._groups
    full, away, both = map(session, ("full", "away", "both"))
    rig.push("a", "b", key=away)
    rig.push("c", key=both)
    rig.push("n")
    rig.flush()
    assert len(rig.poll()) == 3
    rig.push("d", key=both)
    rig.push("e", "f", "g", "h", key=full)
    rig.push("i", "j", "k")
    rig.push("l", "m")
    before = _state(groups)
    groups._session_events = groups._session_bytes = 99
    for group in groups._groups.values():
        group.away = group.charged = group.queued_bytes = 99
        group.stands_in_line = not group.stands_in_line
    groups._oldest = []
    groups._full.reverse()
    del groups._groups[away]
    rig.intake._is_busy = True
    rig.engine.recover()
    assert _state(groups) == before
    assert groups._groups[SESSIONLESS].away == 0
    assert not rig.intake._is_busy
    rig.serve(healthy)
    for attempt in list(rig.engine.in_flight):
        rig.reply(attempt, answer(200))
    rig.assert_settled()
    assert not {full, away, both} & groups._groups.keys()


# From one run to the next.


def test_the_next_run_goes_on_with_what_is_under_way_and_what_waits() -> None:
    """And the time between the runs, in which nobody could try, counts for no retry."""
    rig = Rig(max_batch_events=1, max_elapsed=10.0)
    rig.push("under way", "waiting")
    rig.flush()
    _, waiting = rig.poll()
    rig.reply(waiting, answer(503))
    before = rig.engine
    rig.now = 1000.0
    rig.hand_over()
    assert before.phase is Phase.CLOSED
    assert not before.in_flight
    assert rig.statistics.held == 2
    began = rig.statistics.batches
    rig.serve(lambda sent: answer(503) if sent.at < 1002.0 else sent.all_named)
    assert rig.with_fate("delivered") == {"under way", "waiting"}
    assert rig.statistics.batches == began
    rig.assert_settled()


def test_what_was_under_way_at_the_end_of_a_run_may_have_arrived() -> None:
    rig = Rig(max_retries=1)
    rig.push("a")
    rig.flush()
    rig.poll()
    rig.hand_over()
    rig.serve(lambda _: answer(400))
    assert rig.fate("a") == "unconfirmed"


def test_what_was_in_doubt_at_the_end_of_a_run_does_not_burden_the_next() -> None:
    rig = Rig()
    rig.push("a")
    rig.flush()
    attempt = rig.poll_one()
    with mock.patch.object(Intake, "settle", strikes), pytest.raises(KeyboardInterrupt):
        rig.engine.complete(attempt, named("a"), rig.now)
    rig.hand_over()
    assert (rig.statistics.held, rig.statistics.unconfirmed) == (0, 1)


def test_a_push_that_is_interrupted_before_it_is_queued_leaves_no_group_and_no_charge() -> None:
    rig = Rig()
    key = session("one")

    def strikes_half_way(groups: Groups, fragment: Fragment, charged: int) -> None:
        groups._groups.setdefault(fragment.key, Group(fragment.key)).charged += charged
        raise KeyboardInterrupt

    with mock.patch.object(Groups, "add", strikes_half_way), pytest.raises(KeyboardInterrupt):
        rig.push("a", key=key)
    assert rig.statistics.held_bytes == 0
    rig.push("b", key=key)
    assert rig.statistics.held_bytes == len(event("b")) + len(key.properties)
    rig.serve(healthy)
    assert rig.statistics.held_bytes == 0
