"""Whether and when a batch is tried again."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyhive_batcher.config import RetryLimits
from honeyhive_batcher.core.backoff import backoff, probe_wait
from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment
from honeyhive_batcher.core.model import Attempt, Batch
from honeyhive_batcher.core.retry import Budget, held_again, is_alone_in_being_held, next_attempt

LIMITS = RetryLimits(max_retries=3, max_elapsed=100.0, backoff_base=1.0, backoff_max=10.0)
BATCH = Batch(key=SESSIONLESS, fragments=(Fragment(b"{}", "a", SESSIONLESS, 1, 0.0),))
NEVER = float("-inf")


def whole() -> float:
    return 1.0


def nothing() -> float:
    return 0.0


def half() -> float:
    return 0.5


@pytest.mark.parametrize(
    ("failures", "longest"),
    [(0, 1.0), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (6, 10.0), (61, 10.0), (10_000_000, 10.0)],
)
def test_the_backoff_doubles_up_to_its_longest_and_jitter_takes_of_all_of_it(
    failures: int, longest: float
) -> None:
    assert backoff(LIMITS, failures, whole) == longest
    assert backoff(LIMITS, failures, half) == longest / 2
    assert backoff(LIMITS, failures, nothing) == 0.0


@pytest.mark.parametrize(("base", "most"), [(0.0, 30.0), (0.5, 0.0), (0.0, 0.0)])
def test_there_is_no_backoff_when_either_end_is_nothing(base: float, most: float) -> None:
    limits = RetryLimits(backoff_base=base, backoff_max=most)
    assert [backoff(limits, failures, whole) for failures in (1, 5, 100)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("probes", "least", "most"),
    [
        (1, 2.0, 4.0),
        (2, 4.0, 8.0),
        (3, 8.0, 10.0),
        (4, 10.0, 10.0),
        (61, 10.0, 10.0),
        (10_000_000, 10.0, 10.0),
    ],
)
def test_the_wait_for_a_probe_doubles_up_to_the_longest(probes: int, least: float, most: float) -> None:
    assert probe_wait(LIMITS, probes, nothing) == least
    assert probe_wait(LIMITS, probes, whole) == most


@given(st.floats(0, 1e300), st.floats(0, 1e300), st.integers(-5, 2000), st.floats(0, 1, exclude_max=True))
def test_no_backoff_is_longer_than_the_longest(
    base: float, most: float, failures: int, chance: float
) -> None:
    limits = RetryLimits(backoff_base=base, backoff_max=most)
    assert 0.0 <= backoff(limits, failures, lambda: chance) <= most
    assert 0.0 <= probe_wait(limits, failures, lambda: chance) <= most


def attempt(**fields: object) -> Attempt:
    return msgspec.structs.replace(Attempt(batch=BATCH, first_at=0.0), **fields)


def test_the_next_attempt_is_of_the_same_batch_after_the_backoff() -> None:
    following = next_attempt(LIMITS, attempt(), now=5.0, sound_since=NEVER, counts=True, jitter=whole)
    assert following is not None
    assert following.batch is BATCH
    assert (following.number, following.tries, following.first_at) == (2, 1, 0.0)
    assert following.due_at == 6.0
    third = next_attempt(LIMITS, following, now=6.0, sound_since=NEVER, counts=True, jitter=whole)
    assert third is not None
    assert (third.number, third.tries, third.due_at) == (3, 2, 8.0)


@pytest.mark.parametrize(("tries", "goes_on"), [(1, True), (2, True), (3, False), (4, False)])
def test_so_many_attempts_that_reached_the_server_are_followed_by_another(tries: int, goes_on: bool) -> None:
    """`max_retries` is 3: after the first attempt and two retries there is one left, after three none."""
    following = next_attempt(
        LIMITS, attempt(tries=tries), now=1.0, sound_since=NEVER, counts=True, jitter=nothing
    )
    assert (following is not None) is goes_on


def test_attempts_that_did_not_reach_the_server_do_not_count() -> None:
    one = attempt(tries=3)
    for number in range(2, 30):
        following = next_attempt(LIMITS, one, now=1.0, sound_since=NEVER, counts=False, jitter=nothing)
        assert following is not None
        assert (following.tries, following.number) == (3, number)
        one = following
    assert next_attempt(LIMITS, one, now=1.0, sound_since=NEVER, counts=True, jitter=nothing) is None


def test_without_retries_the_first_failure_is_the_last() -> None:
    none = RetryLimits(max_retries=0)
    assert next_attempt(none, attempt(), now=1.0, sound_since=NEVER, counts=True, jitter=nothing) is None
    assert next_attempt(none, attempt(), now=1.0, sound_since=NEVER, counts=False, jitter=nothing) is not None


@pytest.mark.parametrize(("now", "goes_on"), [(98.9, True), (99.0, True), (99.1, False)])
def test_no_attempt_begins_after_the_time_for_retries(now: float, goes_on: bool) -> None:
    for counts in (True, False):
        following = next_attempt(LIMITS, attempt(), now=now, sound_since=NEVER, counts=counts, jitter=whole)
        assert (following is not None) is goes_on


@pytest.mark.parametrize(
    ("sound_since", "goes_on"), [(NEVER, False), (0.0, False), (99.9, False), (100.0, True), (1e9, True)]
)
def test_the_time_for_retries_does_not_run_before_the_endpoint_is_sound(
    sound_since: float, goes_on: bool
) -> None:
    following = next_attempt(LIMITS, attempt(), now=199.0, sound_since=sound_since, counts=True, jitter=whole)
    assert (following is not None) is goes_on


@pytest.mark.parametrize(("now", "is_free"), [(7.9, True), (8.0, False), (8.1, False)])
def test_an_attempt_brought_forward_goes_back_to_its_instant_at_no_cost(now: float, is_free: bool) -> None:
    early = attempt(early=True, due_at=8.0, number=2, tries=1)
    following = next_attempt(LIMITS, early, now=now, sound_since=NEVER, counts=True, jitter=whole)
    assert following is not None
    assert not following.early
    if is_free:
        assert (following.number, following.tries, following.due_at) == (2, 1, 8.0)
    else:
        assert (following.number, following.tries, following.due_at) == (3, 2, now + 2.0)


def test_only_an_attempt_that_a_flush_brought_forward_is_free() -> None:
    """A clock that goes back makes no other attempt free."""
    punctual = attempt(early=False, due_at=8.0, number=2, tries=1)
    following = next_attempt(LIMITS, punctual, now=7.0, sound_since=NEVER, counts=True, jitter=whole)
    assert following is not None
    assert (following.number, following.tries) == (3, 2)


@pytest.mark.parametrize(("counts", "is_free"), [(True, False), (False, True)])
def test_an_extra_try_costs_nothing_unless_it_may_have_arrived(counts: bool, is_free: bool) -> None:
    """An earlier attempt may have: it was counted then."""
    early = attempt(early=True, due_at=8.0, number=2, tries=1, maybe_sent=True)
    following = next_attempt(LIMITS, early, now=7.0, sound_since=NEVER, counts=counts, jitter=whole)
    assert following is not None
    if is_free:
        assert (following.number, following.tries, following.due_at) == (2, 1, 8.0)
    else:
        assert (following.number, following.tries, following.due_at) == (3, 2, 9.0)


@pytest.mark.parametrize(
    ("succeeded_at", "holds"), [(NEVER, 0), (59.9, 0), (60.0, 0), (60.1, 1), (119.9, 1), (120.0, 1)]
)
def test_a_hold_counts_when_others_went_since_the_one_before(succeeded_at: float, holds: int) -> None:
    first = held_again(attempt(), 60.0, 50.0)
    assert (first.held_at, first.holds) == (60.0, 0)
    second = held_again(first, 120.0, succeeded_at)
    assert (second.held_at, second.holds) == (120.0, holds)


@pytest.mark.parametrize(("holds", "is_alone"), [(1, False), (2, True), (3, True)])
def test_two_holds_that_count_are_those_of_the_batch_itself(holds: int, is_alone: bool) -> None:
    assert is_alone_in_being_held(attempt(holds=holds)) is is_alone


def test_what_is_known_about_a_batch_stays_known() -> None:
    one = attempt(maybe_sent=True, suspect=True, trial="trial")
    following = next_attempt(LIMITS, one, now=1.0, sound_since=NEVER, counts=True, jitter=nothing)
    assert following is not None
    assert (following.maybe_sent, following.suspect, following.trial) == (True, True, "trial")


# The budget.


def taken_at(budget: Budget, now: float, most: int = 1000) -> int:
    """How many tokens can be taken at `now`."""
    taken = 0
    while budget.opens_at <= now and taken < most:
        budget.take(now)
        taken += 1
    return taken


def test_a_full_budget_gives_as_many_tokens_as_it_holds() -> None:
    assert taken_at(Budget(capacity=10.0), 100.0) == 10
    assert taken_at(Budget(capacity=1.0), 0.0) == 1


def test_time_brings_two_tokens_a_second_up_to_the_capacity() -> None:
    budget = Budget(capacity=10.0)
    assert taken_at(budget, 100.0) == 10
    assert budget.opens_at == 100.5
    assert [taken_at(budget, now) for now in (100.4, 100.5, 100.9, 101.0, 104.0, 1e6)] == [0, 1, 0, 1, 6, 10]


def test_two_successes_bring_a_token_up_to_the_capacity() -> None:
    budget = Budget(capacity=3.0)
    assert taken_at(budget, 100.0) == 3
    budget.succeeded()
    assert taken_at(budget, 100.0) == 0
    budget.succeeded()
    assert taken_at(budget, 100.0) == 1
    for _ in range(100):
        budget.succeeded()
    assert taken_at(budget, 100.0) == 3


def test_a_clock_that_does_not_move_brings_nothing() -> None:
    budget = Budget(capacity=2.0)
    assert taken_at(budget, 100.0) == 2
    assert taken_at(budget, 100.0) == 0
    assert taken_at(budget, 50.0) == 0


def test_a_clock_that_goes_back_takes_nothing() -> None:
    budget = Budget(capacity=2.0)
    budget.take(100.0)
    budget.take(99.5)
    assert budget.opens_at == 100.0


@given(st.lists(st.floats(0, 3), max_size=30), st.integers(0, 20))
def test_an_outage_multiplies_the_traffic_by_no_more_than_the_budget(
    waits: list[float], successes: int
) -> None:
    budget = Budget(capacity=10.0)
    now = started_at = 1000.0
    taken = taken_at(budget, now)
    for _ in range(successes):
        budget.succeeded()
    for wait in waits:
        now += wait
        taken += taken_at(budget, now)
    assert taken <= 10 + successes * 0.5 + (now - started_at) * 2.0 + 1e-6
