"""Which attempt goes next, and when."""

import pytest

from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment
from honeyhive_batcher.core.model import Attempt, Batch
from honeyhive_batcher.core.retry import Budget
from honeyhive_batcher.core.schedule import NOW, Schedule


def attempt(due_at: float = 0.0) -> Attempt:
    fragment = Fragment(b"{}", "a", SESSIONLESS, 1, 0.0)
    return Attempt(batch=Batch(key=SESSIONLESS, fragments=(fragment,)), due_at=due_at)


def schedule(capacity: float = 10.0) -> Schedule:
    return Schedule(Budget(capacity=capacity))


def taken(plan: Schedule, now: float) -> Attempt | None:
    """What goes while the endpoint works and nothing is ripe."""
    return plan.next(now, lambda _: None, is_down=False)


def test_an_empty_schedule_has_nothing_to_do() -> None:
    empty = schedule()
    assert taken(empty, 1e9) is None
    assert empty.due_at() is None
    assert empty.take_all() == []


def test_pieces_go_at_once_in_their_order_and_before_retries() -> None:
    plan = schedule()
    first, second, retry = attempt(), attempt(), attempt(1.0)
    plan.wait(retry)
    plan.add(first)
    plan.add(second)
    assert plan.due_at() == NOW
    assert [taken(plan, 5.0) for _ in range(4)] == [first, second, retry, None]


@pytest.mark.parametrize(("now", "goes"), [(9.9, False), (10.0, True), (10.1, True)])
def test_a_retry_goes_at_its_instant(now: float, goes: bool) -> None:
    plan = schedule()
    retry = attempt(10.0)
    plan.wait(retry)
    assert plan.due_at() == 10.0
    assert (taken(plan, now) is retry) is goes


def test_retries_go_by_their_instants_and_those_of_one_instant_in_their_order() -> None:
    plan = schedule()
    late, one, two, soon = attempt(9.0), attempt(5.0), attempt(5.0), attempt(1.0)
    for retry in (late, soon, one, two):
        plan.wait(retry)
    assert plan.due_at() == 1.0
    assert [taken(plan, 100.0) for _ in range(5)] == [soon, one, two, late, None]


def test_a_retry_waits_for_the_budget_too_and_pieces_do_not() -> None:
    plan = schedule(capacity=1.0)
    first, second, piece = attempt(10.0), attempt(10.0), attempt()
    plan.wait(first)
    plan.wait(second)
    assert taken(plan, 10.0) is first
    assert plan.due_at() == 10.5
    assert taken(plan, 10.4) is None
    plan.add(piece)
    assert taken(plan, 10.4) is piece
    assert taken(plan, 10.5) is second


def test_hurry_brings_all_that_wait_forward_in_the_order_in_which_they_were_due() -> None:
    plan = schedule()
    late, soon = attempt(9.0), attempt(5.0)
    plan.wait(late)
    plan.wait(soon)
    plan.hurry()
    later = attempt(1.0)
    plan.wait(later)
    brought = [taken(plan, 1.0) for _ in range(3)]
    assert [one is not None and (one.batch, one.due_at, one.early) for one in brought] == [
        (soon.batch, 5.0, True),
        (late.batch, 9.0, True),
        (later.batch, 1.0, False),
    ]


def test_to_hurry_twice_keeps_the_order() -> None:
    plan = schedule()
    waiting = [attempt(float(10 - number)) for number in range(5)]
    for one in waiting:
        plan.wait(one)
    plan.hurry()
    plan.hurry()
    gone = [taken(plan, 0.5) for _ in range(5)]
    assert [one and one.batch for one in gone] == [one.batch for one in reversed(waiting)]


def test_what_was_brought_forward_still_needs_the_budget() -> None:
    plan = schedule(capacity=1.0)
    for _ in range(2):
        plan.wait(attempt(50.0))
    plan.hurry()
    assert taken(plan, 10.0) is not None
    assert taken(plan, 10.0) is None
    assert plan.due_at() == 10.5


def test_all_are_taken_out_once() -> None:
    plan = schedule()
    piece, retry = attempt(), attempt(5.0)
    plan.wait(retry)
    plan.add(piece)
    assert plan.take_all() == [piece, retry]
    assert plan.take_all() == []
    assert plan.due_at() is None


def test_what_waits_goes_before_what_was_never_tried() -> None:
    plan = schedule()
    retry, fresh = attempt(1.0), attempt()
    plan.wait(retry)
    assert plan.next(5.0, lambda _: fresh.batch, is_down=False) is retry
    began = plan.next(5.0, lambda _: fresh.batch, is_down=False)
    assert began is not None
    assert began.batch is fresh.batch
    assert (began.number, began.first_at) == (1, None)


def test_while_the_endpoint_is_down_a_few_batches_take_turns() -> None:
    plan = schedule()
    one, last, fresh = attempt(0.0), attempt(6.0), attempt(7.0)
    plan.wait(one)
    for _ in range(14):
        plan.wait(attempt(5.0))
    began = plan.next(9.0, lambda _: fresh.batch, is_down=True)
    assert began is not None
    assert began.batch is fresh.batch
    assert plan.next(9.0, lambda _: None, is_down=True) is one  # when nothing else is there
    plan.wait(one)
    plan.wait(last)
    assert plan.next(9.0, lambda _: fresh.batch, is_down=True) is one
