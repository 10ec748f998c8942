"""Every limit of the configuration on the whole core: one below, at it, and one above.

The engine is driven by hand. Bodies are measured where they leave, as bytes.
"""

import json
from typing import Any

import pytest

from honeyhive_batcher.config import Config
from honeyhive_batcher.core.encoding import EventEncoder, Refusal
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.fragment import SESSIONLESS
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import Admission, Attempt, Failure, Response
from honeyhive_batcher.core.repair import repair
from honeyhive_batcher.core.wire import build_request

UNSENT = Failure(cause="refused", unsent=True)
BUSY = Response(status=503)
LOST = Failure(cause="reset", unsent=False)


class Core:
    """All of the core with a clock that stands still until it is set."""

    def __init__(self, *, jitter: float = 0.0, **settings: Any) -> None:
        config = Config.of(test_mode=True, **settings)
        self.now = 1000.0
        self.number = 0
        self.encoder = EventEncoder(
            max_event_bytes=config.batch.max_event_bytes, defaults={}, ids=self, repair=repair
        )
        self.intake = Intake(config.queue, config.batch)
        self.engine = Engine(
            self.intake,
            max_in_flight=config.endpoint.max_in_flight,
            retry=config.retry,
            jitter=lambda: jitter,
        )

    def next(self) -> bytes:
        self.number += 1
        return b"%036d" % self.number

    def push(self, **event: object) -> Admission:
        encoded = self.encoder.encode(event)
        if isinstance(encoded, Refusal):
            return encoded.admission
        return self.intake.admit(encoded, SESSIONLESS, self.now)

    def push_bytes(self, size: int) -> Admission:
        """Push an event of so many bytes; 58 of them are its id, its braces and its one field."""
        return self.push(x="x" * (size - 58))

    def bodies(self) -> list[bytes]:
        return [build_request(attempt.batch).body for attempt in self.engine.poll(self.now)]

    def attempt(self) -> Attempt | None:
        begun = self.engine.poll(self.now)
        assert len(begun) <= 1
        return begun[0] if begun else None


def test_the_event_of_so_many_bytes_has_so_many_bytes() -> None:
    core = Core()
    core.push_bytes(100)
    core.intake.close()
    (body,) = core.bodies()
    assert len(body) == len(b'{"model_events":[]}') + 100
    assert len(json.loads(body)["model_events"][0]["x"]) == 42


@pytest.mark.parametrize(("events", "admission"), [(4, "accepted"), (5, "accepted"), (6, "queue_full")])
def test_max_queue_events(events: int, admission: str) -> None:
    core = Core(max_queue_events=5, max_batch_events=2)
    for _ in range(events - 1):
        core.push()
    core.engine.poll(core.now)  # what is on its way is held as well
    assert core.push().value == admission
    assert core.intake.statistics().held == min(events, 5)


@pytest.mark.parametrize(("size", "admission"), [(99, "accepted"), (100, "accepted"), (101, "queue_full")])
def test_max_queue_bytes(size: int, admission: str) -> None:
    core = Core(max_queue_bytes=500, max_batch_events=2)
    for _ in range(4):
        core.push_bytes(100)
    core.engine.poll(core.now)
    assert core.push_bytes(size).value == admission
    assert core.intake.statistics().held_bytes == (400 + size if admission == "accepted" else 400)


@pytest.mark.parametrize(
    ("events", "sent"), [(9, []), (10, [10]), (11, [10]), (20, [10, 10]), (21, [10, 10])]
)
def test_max_batch_events(events: int, sent: list[int]) -> None:
    core = Core(max_batch_events=10)
    for _ in range(events):
        core.push()
    assert [len(json.loads(body)["model_events"]) for body in core.bodies()] == sent
    core.now += 1.0
    assert sum(len(json.loads(body)["model_events"]) for body in core.bodies()) == events - sum(sent)


@pytest.mark.parametrize(
    ("last", "sizes"), [(1023 - 19 - 502, [1023]), (1024 - 19 - 502, [1024]), (1025 - 19 - 502, [521, 523])]
)
def test_max_batch_bytes(last: int, sizes: list[int]) -> None:
    core = Core(max_batch_bytes=1024)
    core.push_bytes(501)
    core.push_bytes(last)
    core.now += 1.0
    assert [len(body) for body in core.bodies()] == ([520, last + 19] if len(sizes) == 2 else sizes)


@pytest.mark.parametrize(("more", "admission"), [(-1, "accepted"), (0, "accepted"), (1, "too_large")])
def test_an_event_that_fits_into_no_body_is_too_large(more: int, admission: str) -> None:
    core = Core(max_batch_bytes=1024)
    assert core.push_bytes(1024 - 19 + more).value == admission


@pytest.mark.parametrize(("size", "admission"), [(299, "accepted"), (300, "accepted"), (301, "too_large")])
def test_max_event_bytes(size: int, admission: str) -> None:
    assert Core(max_event_bytes=300).push_bytes(size).value == admission


@pytest.mark.parametrize(("after", "sent"), [(1.999, 0), (2.0, 1), (2.001, 1)])
def test_flush_interval(after: float, sent: int) -> None:
    core = Core(flush_interval=2.0)
    core.push()
    assert core.engine.wake_at() == 1002.0
    core.now += after
    assert len(core.bodies()) == sent


@pytest.mark.parametrize(("max_in_flight", "sent"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4)])
def test_max_in_flight(max_in_flight: int, sent: int) -> None:
    core = Core(max_in_flight=max_in_flight, max_batch_events=1)
    for _ in range(10):
        core.push()
    assert len(core.bodies()) == sent
    assert core.engine.wake_at() is None
    assert core.bodies() == []


@pytest.mark.parametrize("max_in_flight", [5, 6, 7])
def test_max_in_flight_is_reached_and_not_passed(max_in_flight: int) -> None:
    core = Core(max_in_flight=max_in_flight, max_batch_events=1)
    for _ in range(100):
        core.push()
    most = 0
    under_way = core.engine.poll(core.now)
    while under_way:
        most = max(most, len(under_way))
        core.engine.complete(under_way.pop(0), Response(status=200), core.now)
        under_way += core.engine.poll(core.now)
    assert most == max_in_flight
    assert core.intake.statistics().delivered == 100


@pytest.mark.parametrize("max_retries", [0, 1, 2, 5])
def test_max_retries(max_retries: int) -> None:
    core = Core(max_retries=max_retries, max_elapsed=1e6)
    core.push()
    core.intake.close()
    sent = set()
    requests = 0
    while (attempt := core.attempt()) is not None:
        requests += 1
        sent.add(build_request(attempt.batch).body)
        core.engine.complete(attempt, LOST, core.now)
        core.now += 100.0
        assert requests <= 10
    assert requests == 1 + max_retries
    assert len(sent) == 1
    now = core.intake.statistics()
    assert (now.unconfirmed, now.retries, now.held) == (1, max_retries, 0)


@pytest.mark.parametrize(("failed_after", "goes_on"), [(58.9, True), (59.0, True), (59.1, False)])
@pytest.mark.parametrize("reply", [UNSENT, BUSY], ids=["unsent", "busy"])
def test_max_elapsed(failed_after: float, goes_on: bool, reply: Failure | Response) -> None:
    core = Core(max_elapsed=60.0, backoff_base=1.0, backoff_max=1.0, jitter=1.0)
    core.push()
    core.now += 1.0
    attempt = core.attempt()
    assert attempt is not None
    core.now += failed_after
    core.engine.complete(attempt, reply, core.now)
    assert core.intake.statistics().held == int(goes_on)
    assert core.engine.wake_at() == (core.now + 1.0 if goes_on else None)


@pytest.mark.parametrize(("after", "goes"), [(0.249, False), (0.25, True), (0.251, True)])
def test_backoff_base(after: float, goes: bool) -> None:
    core = Core(backoff_base=0.25, flush_interval=0.0, jitter=1.0)
    core.push()
    attempt = core.attempt()
    assert attempt is not None
    core.engine.complete(attempt, BUSY, core.now)
    assert core.engine.wake_at() == 1000.25
    core.now += after
    assert (core.attempt() is not None) is goes


def test_backoff_max() -> None:
    core = Core(
        backoff_base=1.0, backoff_max=3.0, max_retries=9, max_elapsed=1e6, flush_interval=0.0, jitter=1.0
    )
    core.push()
    waits = []
    for _ in range(6):
        attempt = core.attempt()
        assert attempt is not None
        core.engine.complete(attempt, BUSY, core.now)
        wake_at = core.engine.wake_at()
        assert wake_at is not None
        waits.append(wake_at - core.now)
        core.now = wake_at
    assert waits == [1.0, 3.0, 3.0, 3.0, 3.0, 3.0]  # from the second on it is a probe, which waits longer
