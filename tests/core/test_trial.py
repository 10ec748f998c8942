"""The search for the poison in a refused batch."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyhive_batcher.core.fragment import SESSIONLESS, Closing, Fragment, GroupKey, Mended, Repaired
from honeyhive_batcher.core.model import Attempt, Batch
from honeyhive_batcher.core.trial import Piece, Trial, mended_batch


def fragments(count: int) -> tuple[Fragment, ...]:
    return tuple(Fragment(b"{}", f"e{number}", SESSIONLESS, number, 0.0) for number in range(count))


def whole(count: int) -> Piece:
    return Piece(fragments=fragments(count), maybe_sent=False)


def search(count: int, poison: set[int], *, is_systemic: bool = False) -> tuple[set[int], set[int], int]:
    """Play the server that refuses every piece with poison in it.

    Returns the events dropped alone, those dropped together as hopeless, and the number of refusals.
    """
    piece: Piece | None = whole(count)
    trial = Trial(count, is_systemic=is_systemic)
    dropped: set[int] = set()
    refusals = 0
    while piece is not None:
        if poison & {fragment.seq for fragment in piece.fragments}:
            refusals += 1
            if trial.refused(piece):
                assert len(piece.fragments) == 1
                dropped.add(piece.fragments[0].seq)
            if trial.is_hopeless:
                rest = {fragment.seq for left in trial.take_all() for fragment in left.fragments}
                assert trial.next() is None
                return dropped, rest, refusals
        else:
            trial.accepted()
        piece = trial.next()
    return dropped, set(), refusals


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9, 64, 100])
def test_one_poison_event_is_found_wherever_it_stands_and_soon(count: int) -> None:
    for place in range(count):
        dropped, hopeless, refusals = search(count, {place})
        assert (dropped, hopeless) == ({place}, set())
        assert refusals <= math.ceil(math.log2(max(2, count))) + 1


@given(st.integers(2, 60), st.data())
def test_only_poison_is_dropped_when_anything_was_taken(count: int, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    dropped, hopeless, _ = search(count, poison)
    assert dropped <= poison
    assert dropped | hopeless >= poison
    if not hopeless:
        assert dropped == poison


@pytest.mark.parametrize(("count", "refusals"), [(2, 3), (4, 5), (8, 7), (16, 9), (100, 15)])
def test_a_server_that_refuses_everything_is_known_soon(count: int, refusals: int) -> None:
    dropped, hopeless, needed = search(count, set(range(count)))
    assert dropped | hopeless == set(range(count))
    assert needed <= refusals
    assert count <= 4 or needed == refusals


def test_three_refusals_are_enough_when_the_batch_before_was_refused_as_well() -> None:
    dropped, hopeless, refusals = search(100, set(range(100)), is_systemic=True)
    assert refusals == 3
    assert dropped | hopeless == set(range(100))


def test_a_single_event_that_is_refused_is_the_poison_and_nothing_is_hopeless() -> None:
    trial = Trial(1, is_systemic=True)
    assert trial.refused(whole(1))
    assert not trial.is_hopeless
    assert trial.next() is None


def test_two_poisons_that_are_all_of_a_batch_are_two_poisons_and_nothing_is_hopeless() -> None:
    trial = Trial(2, is_systemic=False)
    trial.refused(whole(2))
    for _ in range(2):
        piece = trial.next()
        assert piece is not None
        assert trial.refused(piece)
    assert not trial.is_hopeless


def test_nothing_is_hopeless_after_one_event_was_taken() -> None:
    trial = Trial(100, is_systemic=True)
    trial.accepted()
    piece: Piece | None = whole(100)
    while piece is not None:
        trial.refused(piece)
        assert not trial.is_hopeless
        piece = trial.next()


def test_a_piece_that_is_too_large_is_split_without_counting_as_a_refusal() -> None:
    trial = Trial(8, is_systemic=True)
    trial.split(whole(8))
    assert not trial.is_hopeless
    pieces = [trial.next(), trial.next()]
    assert [piece and [fragment.seq for fragment in piece.fragments] for piece in pieces] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    assert trial.next() is None
    for _ in range(2):
        trial.refused(whole(8))
        assert not trial.is_hopeless
    trial.refused(whole(8))
    assert trial.is_hopeless


def seqs(piece: Piece | None) -> list[int]:
    assert piece is not None
    return [fragment.seq for fragment in piece.fragments]


def test_the_pieces_of_a_refused_piece_come_next_the_left_one_first() -> None:
    trial = Trial(8, is_systemic=False)
    trial.refused(whole(8))
    left = trial.next()
    assert seqs(left) == [0, 1, 2, 3]
    assert left is not None
    trial.refused(left)
    assert [seqs(trial.next()) for _ in range(3)] == [[0, 1], [2, 3], [4, 5, 6, 7]]
    assert trial.next() is None


def test_before_all_is_hopeless_single_events_from_all_over_the_batch_are_tried() -> None:
    """So that many bad events do not look like a server that refuses everything."""
    trial = Trial(16, is_systemic=False)
    tried = [seqs(whole(16))]
    trial.refused(whole(16))
    while not trial.is_hopeless:
        piece = trial.next()
        assert piece is not None
        tried.append(seqs(piece))
        trial.refused(piece)
    assert [len(each) for each in tried] == [16, 8, 4, 2, 1, 1, 1, 1, 1]
    assert tried[4:] == [[0], [1], [12], [10], [6]]
    rest = sorted(seq for left in trial.take_all() for seq in seqs(left))
    assert rest == sorted({*range(16)} - {0, 1, 12, 6, 10})


def test_a_batch_after_a_hopeless_one_is_asked_for_single_events_at_once() -> None:
    trial = Trial(100, is_systemic=True)
    trial.refused(whole(100))
    tried = []
    while not trial.is_hopeless:
        piece = trial.next()
        assert piece is not None
        tried.append(seqs(piece))
        assert trial.refused(piece)
    assert tried == [[75], [25]]


def test_the_search_goes_on_in_order_when_a_single_event_is_taken() -> None:
    trial = Trial(9, is_systemic=True)
    trial.refused(whole(9))
    assert seqs(trial.next()) == [2]
    trial.accepted()
    assert [seqs(trial.next()) for _ in range(3)] == [[0, 1], [3, 4], [5, 6, 7, 8]]
    assert trial.next() is None


def test_no_piece_is_empty_when_a_single_event_is_taken_out_of_two() -> None:
    trial = Trial(3, is_systemic=True)
    trial.refused(whole(3))
    assert seqs(trial.next()) == [1]
    assert sorted(seqs(piece) for piece in trial.take_all()) == [[0], [2]]


@pytest.mark.parametrize("may_be", [True, False])
def test_what_is_left_of_a_piece_may_have_arrived_as_all_of_it_may(may_be: bool) -> None:
    trial = Trial(9, is_systemic=True)
    trial.refused(Piece(fragments=fragments(9), maybe_sent=may_be))
    taken = trial.next()
    assert taken is not None
    assert {taken.maybe_sent, *(piece.maybe_sent for piece in trial.take_all())} == {may_be}


def test_ten_poisons_wherever_they_stand_cost_no_good_event() -> None:
    """Nine in a row at the head are not the sign of a server that refuses everything, whatever follows."""
    for last in range(9, 1000, 37):
        dropped, hopeless, _ = search(1000, {*range(9), last})
        assert (dropped, hopeless) == ({*range(9), last}, set())


@pytest.mark.parametrize("bad", [1, 2, 3, 7, 50])
def test_bad_events_in_a_row_at_the_start_do_not_cost_the_good_ones_behind_them(bad: int) -> None:
    dropped, hopeless, _ = search(100, set(range(bad)))
    assert (dropped, hopeless) == (set(range(bad)), set())


@pytest.mark.parametrize("maybe_sent", [True, False])
def test_the_parts_of_what_may_have_arrived_may_have_arrived(maybe_sent: bool) -> None:
    trial = Trial(4, is_systemic=False)
    trial.refused(Piece(fragments=fragments(4), maybe_sent=maybe_sent))
    assert [piece.maybe_sent for piece in trial.take_all()] == [maybe_sent, maybe_sent]


def test_the_parts_of_what_was_held_take_its_holds_along() -> None:
    batch = Batch(key=SESSIONLESS, fragments=fragments(4))
    held = Attempt(batch=batch, number=3, tries=2, held_at=60.0, holds=1)
    for piece in Piece.of(held).halves():
        part = piece.attempt(held, None)
        assert part.batch.fragments == piece.fragments
        assert (part.held_at, part.holds) == (60.0, 1)
        assert (part.number, part.tries, part.first_at) == (1, 0, None)


@given(st.integers(2, 300))
def test_halves_keep_the_order_and_the_first_is_never_the_smaller(count: int) -> None:
    events = fragments(count)
    first, second = (half.fragments for half in Piece(fragments=events, maybe_sent=False).halves())
    assert (*first, *second) == events
    assert 0 <= len(first) - len(second) <= 1
    assert second


# Mending.

SESSION = GroupKey(session_id="s", properties=b"{}")
ODD, MENDED = b'{"event_id":"a","x":NaN}', b'{"event_id":"a","x":null}'


def test_what_is_mended_keeps_its_place_in_the_batch_and_what_it_was_charged() -> None:
    good = Fragment(b'{"event_id":"b","x":"NaN"}', 13, SESSION, 8, 6.0)
    closing = Closing(b'{"x":NaN}', "s", SESSION, 9, 6.5, closing=b"{}")
    batch = Batch(key=SESSION, fragments=(Fragment(ODD, 13, SESSION, 7, 5.0), good, closing))
    made = mended_batch(batch)
    assert made is not None
    assert made.key is SESSION
    mended, *others = made.fragments
    assert [each is other for each, other in zip(others, (good, closing), strict=True)] == [True, True]
    assert (mended.data, mended.event_id, mended.size) == (MENDED, "a", len(ODD))
    assert (mended.key, mended.seq, mended.accepted_at, mended.settled) == (SESSION, 7, 5.0, False)


@pytest.mark.parametrize(
    ("fragment", "charged"), [(Mended(ODD, "a", charged=50), 50), (Repaired(ODD, 13, repairs=1), len(ODD))]
)
def test_what_is_mended_is_charged_what_it_was(fragment: Fragment, charged: int) -> None:
    made = mended_batch(Batch(key=SESSIONLESS, fragments=(fragment,)))
    assert made is not None
    assert [each.size for each in made.fragments] == [charged]


def test_where_there_is_nothing_to_mend_there_is_no_other_batch() -> None:
    good = Fragment(b'{"event_id":"b","x":"NaN"}', 13)
    closing = Closing(b'{"x":NaN}', "s", SESSION, closing=b"{}")
    assert mended_batch(Batch(key=SESSIONLESS, fragments=(good,))) is None
    assert mended_batch(Batch(key=SESSION, fragments=(good, closing))) is None
