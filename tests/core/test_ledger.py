"""Every event is counted once."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment
from honeyhive_batcher.core.ledger import Barrier, Ledger, Statistics
from honeyhive_batcher.core.model import Admission, DropReason, Fate, Settlement
from honeyhive_batcher.errors import InternalError


def ledger(max_events: int = 10, max_bytes: int = 100) -> Ledger:
    return Ledger(max_events=max_events, max_bytes=max_bytes)


def accepted(book: Ledger, size: int = 10) -> Fragment:
    seq = book.accept(size)
    assert seq
    return Fragment(b"x" * size, f"e{seq}", SESSIONLESS, seq, 0.0)


def adds_up(now: Statistics) -> bool:
    return (
        now.offered == now.accepted + sum(now.refused.values())
        and now.accepted == now.delivered + sum(now.dropped.values()) + now.unconfirmed + now.held
    )


def test_a_new_ledger_holds_nothing() -> None:
    now = ledger().statistics()
    assert adds_up(now)
    assert (now.offered, now.held, now.held_bytes, now.endpoint) == (0, 0, 0, "unknown")
    assert (now.refused, now.dropped, now.last_error, now.last_delivery_at) == ({}, {}, None, None)
    assert (now.accepted, now.delivered, now.unconfirmed, now.in_flight) == (0, 0, 0, 0)
    assert (now.requests, now.retries, now.batches, now.repaired, now.callback_errors) == (0, 0, {}, 0, 0)


@pytest.mark.parametrize(("held", "has_room"), [(8, True), (9, True), (10, False)])
def test_so_many_events_are_held_and_no_more(held: int, has_room: bool) -> None:
    book = ledger(max_events=10, max_bytes=1000)
    for _ in range(held):
        accepted(book)
    assert book.has_room(1, 10) is has_room
    assert book.accept(10) == (held + 1 if has_room else 0)
    assert book.held_events == min(held + 1, 10)


@pytest.mark.parametrize(("size", "has_room"), [(39, True), (40, True), (41, False)])
def test_so_many_bytes_are_held_and_no_more(size: int, has_room: bool) -> None:
    book = ledger(max_events=1000, max_bytes=100)
    accepted(book, 60)
    assert book.has_room(1, size) is has_room
    assert bool(book.accept(size)) is has_room
    assert book.held_bytes == (60 + size if has_room else 60)


@pytest.mark.parametrize(("size", "could"), [(99, True), (100, True), (101, False)])
def test_what_is_larger_than_the_bound_could_never_be_held(size: int, could: bool) -> None:
    assert ledger(max_bytes=100).could_hold(size) is could


def test_events_are_numbered_from_one_in_their_order() -> None:
    book = ledger()
    assert [accepted(book).seq for _ in range(3)] == [1, 2, 3]


def test_a_refusal_is_counted_by_its_reason() -> None:
    book = ledger()
    accepted(book)
    for admission in (Admission.QUEUE_FULL, Admission.CLOSED, Admission.QUEUE_FULL):
        book.refuse(admission)
    now = book.statistics()
    assert now.refused == {"queue_full": 2, "closed": 1}
    assert (now.offered, now.accepted) == (4, 1)
    assert adds_up(now)


@pytest.mark.parametrize(
    ("fate", "reason"),
    [(Fate.DELIVERED, None), (Fate.UNCONFIRMED, None), *((Fate.DROPPED, reason) for reason in DropReason)],
)
def test_a_fate_is_counted_and_the_capacity_returned(fate: Fate, reason: DropReason | None) -> None:
    book = ledger()
    fragments = [accepted(book, 20), accepted(book, 30)]
    kept = accepted(book, 7)
    book.settle(fragments, fate, reason)
    now = book.statistics()
    assert adds_up(now)
    assert (now.held, now.held_bytes) == (1, 7)
    assert now.delivered == (2 if fate is Fate.DELIVERED else 0)
    assert now.unconfirmed == (2 if fate is Fate.UNCONFIRMED else 0)
    assert now.dropped == ({reason.value: 2} if reason else {})
    assert [fragment.settled for fragment in (*fragments, kept)] == [True, True, False]


class Unasked(Counter[DropReason]):
    """Fails where a count would call something of Python's own: too near the recursion limit, say."""

    def __missing__(self, key: DropReason) -> int:
        raise RecursionError


def test_the_first_drop_for_a_reason_calls_nothing_that_may_fail_half_way() -> None:
    book = ledger()
    book.dropped = Unasked()
    book.settle([accepted(book)], Fate.DROPPED, DropReason.EVICTED)
    assert book.statistics().dropped == {"evicted": 1}
    assert adds_up(book.statistics())


def test_a_second_settlement_raises_and_changes_nothing() -> None:
    book = ledger()
    book.keep_settlements = True
    first, second = accepted(book), accepted(book)
    barrier = book.raise_barrier()
    book.settle([first], Fate.DELIVERED, None)
    before = book.statistics()
    for fragments in ([first], [second, first]):
        with pytest.raises(InternalError, match="e1 was settled twice"):
            book.settle(fragments, Fate.DROPPED, DropReason.REJECTED)
    assert book.statistics() == before
    assert not second.settled
    assert (barrier.held, barrier.delivered, barrier.dropped) == (1, 1, 0)
    assert len(book.take_settlements()) == 1


def test_settling_nothing_changes_nothing() -> None:
    book = ledger()
    book.keep_settlements = True
    before = book.statistics()
    book.settle([], Fate.DROPPED, DropReason.SHUTDOWN)
    assert msgspec.structs.replace(book.statistics(), dropped={}) == before
    assert book.take_settlements() == []


# Barriers.


def test_a_barrier_counts_every_event_before_it_and_none_behind() -> None:
    book = ledger()
    early = [accepted(book) for _ in range(4)]
    barrier = book.raise_barrier()
    late = accepted(book)
    assert (barrier.watermark, barrier.held) == (4, 4)
    book.settle([early[0], late], Fate.DELIVERED, None)
    book.settle([early[1]], Fate.DROPPED, DropReason.REJECTED)
    book.settle([early[2]], Fate.UNCONFIRMED, None)
    assert (barrier.held, barrier.delivered, barrier.dropped, barrier.unconfirmed) == (1, 1, 1, 1)
    book.settle([early[3]], Fate.DELIVERED, None)
    assert (barrier.held, barrier.delivered, barrier.dropped, barrier.unconfirmed) == (0, 2, 1, 1)


def test_a_barrier_adds_up_what_met_the_same_fate() -> None:
    book = ledger()
    dropped = [accepted(book) for _ in range(3)]
    unconfirmed = [accepted(book) for _ in range(4)]
    barrier = book.raise_barrier()
    for some in (dropped[:1], dropped[1:]):
        book.settle(some, Fate.DROPPED, DropReason.REJECTED)
    for some in (unconfirmed[:1], unconfirmed[1:]):
        book.settle(some, Fate.UNCONFIRMED, None)
    assert (barrier.held, barrier.delivered, barrier.dropped, barrier.unconfirmed) == (0, 0, 3, 4)


def test_a_barrier_that_is_lowered_counts_no_more() -> None:
    book = ledger()
    event = accepted(book)
    barrier = book.raise_barrier()
    book.lower_barrier(barrier)
    book.settle([event], Fate.DELIVERED, None)
    assert (barrier.held, barrier.delivered) == (1, 0)


class Evicting(list[Barrier]):
    """Somebody pushes while a barrier is being raised, and that evicts something."""

    def __init__(self, evict: Callable[[], object]) -> None:
        super().__init__()
        self.evict = evict

    def append(self, barrier: Barrier) -> None:
        super().append(barrier)
        self.evict()


def test_a_barrier_does_not_count_what_is_evicted_while_it_is_raised() -> None:
    book = ledger()
    first, second = accepted(book), accepted(book)
    book._barriers = Evicting(lambda: book.settle([first], Fate.DROPPED, DropReason.EVICTED))
    barrier = book.raise_barrier()
    assert (barrier.watermark, barrier.held, barrier.dropped) == (2, 1, 0)
    book.settle([second], Fate.DELIVERED, None)
    assert (barrier.held, barrier.delivered, barrier.dropped) == (0, 1, 0)


def test_a_barrier_does_not_count_what_was_settled_before_it() -> None:
    book = ledger()
    settled = accepted(book)
    book.settle([settled], Fate.DELIVERED, None)
    accepted(book)
    assert book.raise_barrier().held == 1


def test_barriers_count_beside_each_other_until_they_are_lowered() -> None:
    book = ledger()
    one = accepted(book)
    first = book.raise_barrier()
    two = accepted(book)
    second = book.raise_barrier()
    book.settle([one], Fate.DELIVERED, None)
    book.lower_barrier(first)
    book.settle([two], Fate.DELIVERED, None)
    assert (first.held, first.delivered) == (0, 1)
    assert (second.held, second.delivered) == (0, 2)
    book.lower_barrier(second)


# Settlements.


def test_settlements_are_kept_only_for_callbacks_and_given_once() -> None:
    book = ledger()
    book.settle([accepted(book)], Fate.DELIVERED, None)
    assert book.take_settlements() == []
    book.keep_settlements = True
    book.settle([accepted(book), accepted(book)], Fate.DELIVERED, None)
    book.settle([accepted(book)], Fate.DROPPED, DropReason.EVICTED)
    assert book.take_settlements() == [
        Settlement(fate=Fate.DELIVERED, reason=None, event_ids=("e2", "e3")),
        Settlement(fate=Fate.DROPPED, reason=DropReason.EVICTED, event_ids=("e4",)),
    ]
    assert book.take_settlements() == []


def test_a_snapshot_does_not_change_afterwards() -> None:
    book = ledger()
    book.refuse(Admission.CLOSED)
    before = book.statistics()
    book.refuse(Admission.CLOSED)
    book.settle([accepted(book)], Fate.DROPPED, DropReason.EVICTED)
    assert (before.refused, before.dropped, before.accepted) == ({"closed": 1}, {}, 0)


def test_a_snapshot_tells_when_the_server_last_confirmed_an_event() -> None:
    book = ledger()
    book.last_delivery_at = 1700000000.0
    assert book.statistics().last_delivery_at == 1700000000.0


class Interrupted(dict[Admission, int]):
    """Somebody pushes while it is being read."""

    def __init__(self, push: Callable[[], object]) -> None:
        super().__init__()
        self.push = push
        self.pushes = 2

    def items(self) -> Any:
        if self.pushes:
            self.pushes -= 1
            self.push()
        return super().items()


def test_a_snapshot_is_taken_again_when_a_push_comes_in_between() -> None:
    book = ledger()
    book.refused = Interrupted(lambda: accepted(book))
    now = book.statistics()
    assert adds_up(now)
    assert (now.accepted, now.held) == (2, 2)


def test_an_acceptance_that_is_taken_back_never_was() -> None:
    book = ledger()
    kept = accepted(book)
    assert book.accept(7) == 2
    book.take_back(7)
    assert adds_up(book.statistics())
    assert (book.statistics().accepted, book.statistics().held) == (1, 1)
    assert book.statistics().held_bytes == kept.size
    barrier = book.raise_barrier()
    assert (barrier.watermark, barrier.held) == (2, 1)
    assert book.accept(7) == 3  # its place in the order is nobody else's


def test_what_is_taken_back_leaves_the_others() -> None:
    book = ledger()
    kept = [accepted(book) for _ in range(3)]
    for size in (7, 9):
        assert book.accept(size)
        book.take_back(size)
    assert adds_up(book.statistics())
    assert (book.statistics().accepted, book.statistics().held) == (3, 3)
    assert book.statistics().held_bytes == sum(fragment.size for fragment in kept)


@given(
    st.lists(
        st.tuples(st.sampled_from(["accept", "refuse", "settle"]), st.integers(0, 40), st.sampled_from(Fate)),
        max_size=60,
    )
)
def test_the_numbers_add_up_after_every_step(steps: list[tuple[str, int, Fate]]) -> None:
    book = ledger(max_events=8, max_bytes=100)
    held: list[Fragment] = []
    offered = 0
    for step, number, fate in steps:
        if step == "settle":
            going, held = held[: number % 5], held[number % 5 :]
            book.settle(going, fate, DropReason.REJECTED if fate is Fate.DROPPED else None)
        else:
            offered += 1
            seq = book.accept(number) if step == "accept" else 0
            if seq:
                held.append(Fragment(b"x" * number, f"e{seq}", SESSIONLESS, seq, 0.0))
            else:
                book.refuse(Admission.QUEUE_FULL)
        now = book.statistics()
        assert adds_up(now)
        assert now.offered == offered
        assert (now.held, now.held_bytes) == (len(held), sum(fragment.size for fragment in held))
        assert now.held <= 8
        assert now.held_bytes <= 100
