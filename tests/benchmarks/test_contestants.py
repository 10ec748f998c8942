"""Every contestant that is installed really delivers to the suite's own sink, and the sink counts it."""

import http.client
import re
from collections.abc import Iterator

import pytest

from benchmarks import sink
from benchmarks.alone import MeasurementError, alone
from benchmarks.blast import blast
from benchmarks.loss import RATE
from benchmarks.paced import paced
from benchmarks.peers.contestant import ALL, Options, is_installed

EVENTS = 600
DELIVERING = [name for name in ALL if name not in ("nothing", "encode_only")]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with sink.running() as url:
        yield url


@pytest.mark.parametrize("name", DELIVERING)
def test_a_blast_arrives_once(name: str, url: str) -> None:
    if not is_installed(name):
        pytest.skip(f"{name} is not installed")
    run = alone(blast, name, Options(url=url, queue=EVENTS), EVENTS)
    assert (run.given, run.delivered, run.counts.twice, run.counts.refused) == (EVENTS, EVENTS, 0, [])
    assert run.cpu > 0
    assert run.seconds > 0


def test_a_stream_arrives_once(url: str) -> None:
    run = alone(paced, "batcher", Options(url=url), RATE, 0.2)
    assert run.given == run.counts.distinct == run.counts.events == RATE * 0.2
    assert run.lags == sorted(run.lags)
    assert run.lags[0] > 0


@pytest.mark.parametrize("name", ["nothing", "encode_only"])
def test_who_sends_nothing_delivers_nothing(name: str, url: str) -> None:
    run = alone(blast, name, Options(url=url), EVENTS)
    assert (run.delivered, run.counts.requests) == (0, 0)


def test_a_queue_that_is_too_small_shows_as_loss(url: str) -> None:
    run = alone(paced, "batcher", Options(url=url, settings={"max_queue_events": 300}), 1_000_000, 0.01)
    assert 0 < run.counts.distinct < run.given


def test_what_comes_twice_is_counted(url: str) -> None:
    sink.count(url)
    host = url.removeprefix("http://")
    for _ in range(2):
        connection = http.client.HTTPConnection(host)
        connection.request("POST", "/any", b'[{"number": "event-00000001"}, {"number": "event-00000002"}]')
        assert connection.getresponse().status == 200
        connection.close()
    assert sink.progress(url) == 4
    counts = sink.count(url)
    assert (counts.events, counts.distinct, counts.twice) == (4, 2, 2)
    assert sink.count(url).events == 0


def test_what_cannot_be_read_is_refused_and_reported(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request("POST", "/events/model/batch", b"{")
    assert connection.getresponse().status == 400
    connection.close()
    assert re.match("POST /events/model/batch .*DecodeError", sink.count(url).refused[0])


def test_a_contestant_that_fails_says_why(url: str) -> None:
    with pytest.raises(MeasurementError, match=r"ConfigError.*max_in_flight=0"):
        alone(blast, "batcher", Options(url=url, settings={"max_in_flight": 0}), EVENTS)
