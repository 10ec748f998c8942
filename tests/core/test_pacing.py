"""How many requests the endpoint may have at once, and not before when."""

import pytest

from honeyhive_batcher.config import RetryLimits
from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment
from honeyhive_batcher.core.model import Batch, Endpoint
from honeyhive_batcher.core.pacing import PROBE_INTERVAL, Pacing

NEVER = float("-inf")


def pacing(max_in_flight: int = 16) -> Pacing:
    return Pacing(max_in_flight, RetryLimits(backoff_base=1.0, backoff_max=8.0), lambda: 1.0)


def succeed(paced: Pacing, in_flight: int, *, now: float = 100.0, left: int = 1) -> None:
    fragment = Fragment(b"{}", "a", SESSIONLESS, 1, 0.0)
    batch = Batch(key=SESSIONLESS, fragments=(fragment,))
    paced.succeeded(batch, now, now, in_flight=in_flight, left=left, accepted=0)


def fail(paced: Pacing, now: float, *, started_at: float | None = None) -> None:
    paced.failed(started_at=now if started_at is None else started_at, now=now)


def test_it_begins_with_a_few_requests_at_once_and_grows() -> None:
    paced = pacing()
    assert (paced.limit, paced.opens_at(0)) == (4, NEVER)
    assert paced.endpoint is Endpoint.UNKNOWN
    succeed(paced, 4)
    assert (paced.limit, paced.endpoint) == (5, Endpoint.HEALTHY)


def test_a_failure_takes_a_part_of_the_limit() -> None:
    paced = pacing()
    for _ in range(12):
        succeed(paced, paced.limit)
    assert paced.limit == 16
    fail(paced, 10.0)
    assert (paced.limit, paced.opens_at(0)) == (11, NEVER)
    assert paced.endpoint is Endpoint.BACKING_OFF


def test_failures_of_requests_that_were_under_way_together_count_as_one() -> None:
    paced = pacing()
    fail(paced, 10.0, started_at=9.0)
    for _ in range(3):
        fail(paced, 11.0, started_at=9.5)
    assert (paced.limit, paced.opens_at(0)) == (2, NEVER)


def test_after_two_failures_in_a_row_one_request_goes_at_a_time_after_a_backoff_that_doubles() -> None:
    paced = pacing()
    opens_at = []
    for now in (10.0, 20.0, 30.0, 40.0, 50.0, 60.0):
        fail(paced, now)
        opens_at.append(paced.opens_at(0))
    assert opens_at == [NEVER, 24.0, 38.0, 48.0, 58.0, 68.0]
    assert paced.limit == 1


def test_a_request_that_began_at_the_instant_of_a_failure_counts_anew() -> None:
    paced = pacing()
    fail(paced, 10.0, started_at=10.0)
    fail(paced, 11.0, started_at=10.0)
    assert paced.opens_at(0) == 15.0


def test_a_success_ends_the_backoff() -> None:
    paced = pacing()
    fail(paced, 10.0)
    fail(paced, 20.0)
    succeed(paced, 1)
    assert (paced.limit, paced.opens_at(0)) == (1, 100.0)
    assert not paced.is_down
    assert paced.endpoint is Endpoint.HEALTHY
    fail(paced, 130.0)
    assert paced.opens_at(0) == 100.0  # the count began anew


def test_what_the_server_asked_for_is_a_floor_that_neither_success_nor_hurry_lifts() -> None:
    paced = pacing()
    paced.asked_to_wait(until=40.0)
    assert (paced.opens_at(0), paced.limit) == (40.0, 4)
    succeed(paced, 4)
    paced.hurry()
    assert paced.opens_at(0) == 40.0
    for until, floor_at in ((12.0, 40.0), (40.0, 40.0), (55.0, 55.0)):
        paced.asked_to_wait(until=until)
        assert paced.opens_at(0) == floor_at


@pytest.mark.parametrize(("until", "opens_at"), [(23.9, 24.0), (24.0, 24.0), (24.1, 24.1)])
def test_the_later_of_backoff_and_floor_decides(until: float, opens_at: float) -> None:
    paced = pacing()
    fail(paced, 10.0)
    fail(paced, 20.0)
    paced.asked_to_wait(until=until)
    assert paced.opens_at(0) == opens_at


def test_hurry_lifts_our_own_backoff() -> None:
    paced = pacing()
    fail(paced, 10.0)
    fail(paced, 20.0)
    assert paced.opens_at(0) == 24.0
    paced.hurry()
    assert paced.opens_at(0) == NEVER
    assert paced.limit == 1


def test_a_misconfigured_endpoint_is_asked_again_by_one_request_a_minute() -> None:
    assert PROBE_INTERVAL == 60.0
    paced = pacing()
    paced.misconfigured(started_at=10.0, now=10.0)
    assert (paced.limit, paced.opens_at(0), paced.endpoint) == (1, 70.0, Endpoint.HELD)
    paced.hurry()
    assert paced.opens_at(0) == 70.0
    paced.asked_to_wait(until=100.0)
    assert paced.opens_at(0) == 100.0


def test_a_misconfigured_endpoint_stays_so_through_failures_until_a_success() -> None:
    paced = pacing()
    paced.misconfigured(started_at=10.0, now=10.0)
    fail(paced, 70.0)
    assert paced.endpoint is Endpoint.HELD
    succeed(paced, 1)
    assert (paced.endpoint, paced.opens_at(0)) == (Endpoint.HEALTHY, 100.0)


def test_two_failures_soon_after_a_success_are_no_outage_and_five_are() -> None:
    paced = pacing()
    succeed(paced, 1, now=9.5)
    for number in range(4):
        fail(paced, 10.0 + number / 10)
        assert not paced.is_down
        assert paced.opens_at(0) == NEVER
    fail(paced, 10.45)
    assert paced.is_down
    assert paced.opens_at(0) == 14.45


def test_failures_count_from_the_end_of_the_outage_of_the_catching_up_and_of_what_the_server_asked() -> None:
    paced = pacing()
    assert (paced.sound_since, paced.is_sound(0.0)) == (NEVER, True)
    fail(paced, 10.0)
    fail(paced, 20.0)
    assert (paced.sound_since, paced.is_sound(1e9)) == (float("inf"), False)
    succeed(paced, 1, now=50.0, left=5)
    ends_at = paced.sound_since
    assert ends_at == 50.0 + 2.5 * 4 * 0.95
    assert not paced.is_sound(ends_at - 0.1)
    assert paced.is_sound(ends_at)
    paced.asked_to_wait(until=200.0)
    assert paced.sound_since == 200.0
    assert paced.is_sound(150.0)


# The length of an outage.


@pytest.mark.parametrize(
    "troubles",
    [
        [("failed", 9.0), ("failed", 11.0)],
        [("failed", 9.0), ("failed", 11.0), ("failed", 13.0)],
        [("failed", 9.0), ("failed", 11.0), ("misconfigured", 13.0)],
        [("failed", 9.0), ("misconfigured", 11.0)],
        [("misconfigured", 9.0), ("misconfigured", 11.0)],
        [("misconfigured", 9.0), ("failed", 11.0), ("failed", 13.0)],
    ],
)
def test_an_outage_lasts_from_the_start_of_the_first_request_that_met_it(
    troubles: list[tuple[str, float]],
) -> None:
    def caught_up_after(*of: tuple[str, float]) -> float:
        paced = pacing()
        for verb, started_at in of:
            getattr(paced, verb)(started_at=started_at, now=started_at + 1.0)
        assert paced.is_down
        succeed(paced, 1, now=29.0, left=1001)
        return paced.sound_since

    assert caught_up_after(*troubles) == caught_up_after(("misconfigured", 9.0))
    assert caught_up_after(("misconfigured", 9.0)) > caught_up_after(("misconfigured", 9.1)) > 29.0


def test_a_backlog_leaves_by_and_by_unless_a_flush_asks_for_it() -> None:
    paced = pacing()
    for at in (9.0, 11.0):
        fail(paced, at)
    succeed(paced, 1, now=29.0, left=1001)
    first = paced.opens_at(0)
    paced.begun(Batch(key=SESSIONLESS, fragments=(Fragment(b"{}", "a", SESSIONLESS, 1, 0.0),)), 0)
    assert paced.opens_at(0) > first > 29.0
    paced.hurry()
    assert paced.opens_at(0) <= 29.0


def test_the_catching_up_ends_with_what_waited() -> None:
    """Also when not all of it was sent: some was too large, or evicted."""
    paced = pacing()
    for at in (9.0, 11.0):
        fail(paced, at)
    succeed(paced, 1, now=29.0, left=1001)
    succeed(paced, 1, now=31.0, left=2)
    assert not paced.is_sound(31.0)
    succeed(paced, 1, now=33.0, left=1)
    assert paced.opens_at(0) <= 33.0
    assert paced.is_sound(33.0)


def test_an_outage_that_left_nothing_is_over_when_it_ends() -> None:
    paced = pacing()
    paced.misconfigured(started_at=9.0, now=10.0)
    succeed(paced, 1, now=29.0, left=0)
    assert paced.sound_since == 29.0


@pytest.mark.parametrize(("started_at", "is_down"), [(25.9, True), (26.0, True), (26.1, False)])
def test_a_failure_is_of_the_same_trouble_within_twice_the_longest_backoff(
    started_at: float, is_down: bool
) -> None:
    paced = pacing()
    fail(paced, 10.0)
    fail(paced, 27.0, started_at=started_at)
    assert paced.is_down is is_down


def test_a_second_in_which_nothing_succeeded_shows_an_outage() -> None:
    for failed_at, is_down in [(1.9, False), (2.0, True)]:
        paced = pacing()
        succeed(paced, 1, now=1.0)
        fail(paced, 1.5)
        fail(paced, failed_at)
        assert paced.is_down is is_down


def test_a_probe_of_a_held_endpoint_that_fails_is_followed_by_a_backoff() -> None:
    paced = pacing()
    paced.misconfigured(started_at=9.0, now=10.0)
    fail(paced, 71.0, started_at=70.0)
    assert paced.opens_at(0) == 75.0


def test_a_success_ends_a_hold_and_the_backoff_within_it() -> None:
    paced = pacing()
    paced.misconfigured(started_at=9.0, now=10.0)
    fail(paced, 71.0, started_at=70.0)
    paced.misconfigured(started_at=75.0, now=76.0)
    succeed(paced, 1, now=77.0, left=1)
    assert paced.opens_at(0) <= 77.0
