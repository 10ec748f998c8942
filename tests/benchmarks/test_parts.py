"""The measurements of one batcher alone deliver what they are given, and see what they are there to see."""

from collections.abc import Callable, Iterator

import pytest

from benchmarks import crowd, sink, still
from benchmarks.alone import alone
from benchmarks.service import requests


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with sink.running() as url:
        yield url


@pytest.mark.parametrize(
    ("measure", "value"),
    [(crowd.sessions_alive, 20), (crowd.sessions_in_turn, 20), (crowd.held, 300), (crowd.threads, 3)],
)
def test_a_crowd_arrives_once(measure: Callable[[str, int, int], crowd.Crowd], value: int, url: str) -> None:
    run = alone(measure, url, value, 400)
    assert run.counts.distinct == run.counts.events == run.given
    assert run.net > 0


def test_each_session_in_turn_has_a_body_of_its_own(url: str) -> None:
    assert alone(crowd.sessions_in_turn, url, 20, 400).counts.requests == 20


def test_requests_to_a_service_push_an_event_each(url: str) -> None:
    run = alone(requests, ["nothing", "batcher"], url, 100, 1, 0.3)
    assert run.counts.distinct == run.counts.events == run.given == 60  # a slice of 30, and one to warm up
    assert [[len(latencies) for latencies in slices] for slices in run.latencies] == [[30], [30]]


def test_a_timer_shows_when_idle(url: str) -> None:
    assert not alone(still.idle, "batcher", url, 0.2, None).has_timer
    assert alone(still.idle, "usual_loop", url, 0.2, 0.0).has_timer  # aiohttp's, for its connections


def test_a_first_byte_and_a_turn_take_some_time(url: str) -> None:
    for taken in (alone(still.first_byte, url, 3), alone(still.flush_turns, url, 3)):
        assert len(taken) == 3
        assert 0 < taken[0] <= taken[-1]


def test_a_waiting_event_takes_more_than_its_bytes() -> None:
    assert alone(still.held_bytes, 3_000) > 1_062
