"""How many requests the endpoint may have at once, and not before when."""

import pytest

from honeyhive_batcher.config import RetryLimits
from honeyhive_batcher.core.model import Endpoint
from honeyhive_batcher.core.pacing import PROBE_INTERVAL, Pacing

NEVER = float("-inf")


def pacing(max_in_flight: int = 16) -> Pacing:
    return Pacing(max_in_flight, RetryLimits(backoff_base=1.0, backoff_max=8.0), lambda: 1.0)


def fail(paced: Pacing, now: float, *, started_at: float | None = None) -> None:
    paced.failed(started_at=now if started_at is None else started_at, now=now)


@pytest.mark.parametrize(("max_in_flight", "limit"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (16, 4)])
def test_it_begins_with_a_few_requests_at_once(max_in_flight: int, limit: int) -> None:
    paced = pacing(max_in_flight)
    assert (paced.limit, paced.opens_at, paced.floor_at) == (limit, NEVER, NEVER)
    assert paced.endpoint is Endpoint.UNKNOWN


def test_every_success_at_the_limit_makes_room_for_one_more_up_to_the_most() -> None:
    paced = pacing(8)
    limits = []
    for _ in range(6):
        paced.succeeded(in_flight=paced.limit)
        limits.append(paced.limit)
    assert limits == [5, 6, 7, 8, 8, 8]
    assert paced.endpoint is Endpoint.HEALTHY


def test_a_success_below_the_limit_makes_no_more_room() -> None:
    paced = pacing()
    for _ in range(10):
        paced.succeeded(in_flight=3)
    assert paced.limit == 4


def test_a_failure_halves_the_limit_and_growth_is_slow_afterwards() -> None:
    paced = pacing()
    for _ in range(12):
        paced.succeeded(in_flight=paced.limit)
    assert paced.limit == 16
    fail(paced, 10.0)
    assert (paced.limit, paced.opens_at) == (8, NEVER)
    assert paced.endpoint is Endpoint.BACKING_OFF
    successes = 0
    while paced.limit < 9:
        paced.succeeded(in_flight=paced.limit)
        successes += 1
    assert successes in (8, 9)  # one more for every round


def test_the_limit_never_falls_below_one() -> None:
    paced = pacing()
    for now in range(10):
        fail(paced, float(now))
        paced.succeeded(in_flight=1)
        fail(paced, now + 0.5)
        assert paced.limit == 1 or now == 0
        paced.succeeded(in_flight=0)
    assert paced.limit == 1


def test_failures_of_requests_that_were_under_way_together_count_as_one() -> None:
    paced = pacing()
    fail(paced, 10.0, started_at=9.0)
    for _ in range(3):
        fail(paced, 11.0, started_at=9.5)
    assert (paced.limit, paced.opens_at) == (2, NEVER)


def test_after_two_failures_in_a_row_one_request_goes_at_a_time_after_a_backoff_that_doubles() -> None:
    paced = pacing()
    opens_at = []
    for now in (10.0, 20.0, 30.0, 40.0, 50.0, 60.0):
        fail(paced, now)
        opens_at.append(paced.opens_at)
    assert opens_at == [NEVER, 21.0, 32.0, 44.0, 58.0, 68.0]
    assert paced.limit == 1


def test_a_request_that_began_at_the_instant_of_a_failure_counts_anew() -> None:
    paced = pacing()
    fail(paced, 10.0, started_at=10.0)
    fail(paced, 11.0, started_at=10.0)
    assert paced.opens_at == 12.0


def test_a_success_ends_the_backoff() -> None:
    paced = pacing()
    fail(paced, 10.0)
    fail(paced, 20.0)
    paced.succeeded(in_flight=1)
    assert (paced.limit, paced.opens_at) == (2, NEVER)
    assert paced.endpoint is Endpoint.HEALTHY
    fail(paced, 30.0)
    assert paced.opens_at == NEVER  # the count began anew


def test_what_the_server_asked_for_is_a_floor_that_neither_success_nor_hurry_lifts() -> None:
    paced = pacing()
    paced.asked_to_wait(until=40.0)
    assert (paced.opens_at, paced.floor_at, paced.limit) == (40.0, 40.0, 4)
    paced.succeeded(in_flight=4)
    paced.hurry()
    assert (paced.opens_at, paced.floor_at) == (40.0, 40.0)
    for until, floor_at in ((12.0, 40.0), (40.0, 40.0), (55.0, 55.0)):
        paced.asked_to_wait(until=until)
        assert paced.floor_at == floor_at


@pytest.mark.parametrize(("until", "opens_at"), [(20.9, 21.0), (21.0, 21.0), (21.1, 21.1)])
def test_the_later_of_backoff_and_floor_decides(until: float, opens_at: float) -> None:
    paced = pacing()
    fail(paced, 10.0)
    fail(paced, 20.0)
    paced.asked_to_wait(until=until)
    assert paced.opens_at == opens_at


def test_hurry_lifts_our_own_backoff() -> None:
    paced = pacing()
    fail(paced, 10.0)
    fail(paced, 20.0)
    assert paced.opens_at == 21.0
    paced.hurry()
    assert paced.opens_at == NEVER
    assert paced.limit == 1


def test_a_misconfigured_endpoint_is_asked_again_by_one_request_a_minute() -> None:
    assert PROBE_INTERVAL == 60.0
    paced = pacing()
    assert paced.misconfigured(now=10.0) == 70.0
    assert (paced.limit, paced.opens_at, paced.endpoint) == (1, 70.0, Endpoint.HELD)
    paced.hurry()
    assert paced.opens_at == 70.0
    paced.asked_to_wait(until=100.0)
    assert paced.opens_at == 100.0


def test_a_misconfigured_endpoint_stays_so_through_failures_until_a_success() -> None:
    paced = pacing()
    paced.misconfigured(now=10.0)
    fail(paced, 70.0)
    assert paced.endpoint is Endpoint.HELD
    paced.succeeded(in_flight=1)
    assert (paced.endpoint, paced.opens_at) == (Endpoint.HEALTHY, NEVER)
