"""Transports that a test scripts and asks afterwards, and a batcher made of them."""

import asyncio
import enum
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from honeyhive_batcher import Batcher, Statistics
from honeyhive_batcher.core.model import Failure, Reply, Response
from honeyhive_batcher.core.request import Request
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.runtime.transport import Transport


class Behaviour(enum.Enum):
    """What is no reply."""

    HANG = "hang"
    """Answer never; end when cancelled."""
    IGNORE_CANCELLATION = "ignore cancellation"
    """Answer never, and go on after a cancellation."""


HANG = Behaviour.HANG
OK = Response(status=200)
REFUSED = Failure(cause="connection refused", unsent=True)
RESET = Failure(cause="connection reset", unsent=False)

Step: TypeAlias = Response | Failure | Behaviour | BaseException | Callable[[], Awaitable[Reply]]


class Sent(Struct, frozen=True, kw_only=True):
    """One request, and the instant at which it was sent."""

    at: float
    request: Request

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events in it."""
        body: dict[str, Any] = msgspec.json.decode(self.request.body)
        events: list[dict[str, Any]] = body["model_events"]
        return events


class FakeTransport(Transport):
    """Answers as scripted, one step for each request, then `otherwise`; every answer takes `latency`."""

    def __init__(self, *script: Step, latency: float = 0.0, otherwise: Step = OK) -> None:
        self.script = deque(script)
        self.latency = latency
        self.otherwise = otherwise
        self.on_close: Step = OK
        self.sent: list[Sent] = []
        self.cancelled = 0
        self.opened = 0
        self.closed = 0

    @property
    def instants(self) -> list[float]:
        """When each request was sent."""
        return [sent.at for sent in self.sent]

    @property
    def sizes(self) -> list[int]:
        """How many events were in each request."""
        return [len(sent.events) for sent in self.sent]

    async def open(self) -> None:
        self.opened += 1

    async def send(self, request: Request) -> Reply:
        self.sent.append(Sent(at=asyncio.get_running_loop().time(), request=request))
        step = self.script.popleft() if self.script else self.otherwise
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            return await _take(step)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def close(self) -> None:
        self.closed += 1
        await _take(self.on_close)


async def _take(step: Step) -> Reply:
    if isinstance(step, BaseException):
        raise step
    if isinstance(step, Behaviour):
        await _behave(step)
        return OK
    if isinstance(step, Response | Failure):
        return step
    return await step()


async def _behave(behaviour: Behaviour) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if behaviour is Behaviour.HANG:
            raise
        await asyncio.sleep(30.0)


NEW_ID = "6e9f4b5e-1d0c-4f3e-9a51-0d6a7b8c9d0e"


class FixedIds:
    """One id, for all."""

    def next(self) -> bytes:
        """Return it."""
        return NEW_ID.encode()


class NumberedIds:
    """Ids that are the same in every run."""

    def __init__(self) -> None:
        self.next = map(b"00000000-0000-0000-0000-%012x".__mod__, itertools.count(1)).__next__


def make_batcher(transport: Transport, *, jitter: float = 1.0, **settings: Any) -> Batcher:
    """Make a batcher over a transport, in the time of the running loop, with a jitter that is known."""
    seams = Seams(
        clock=asyncio.get_running_loop().time,
        jitter=lambda: jitter,
        ids=NumberedIds(),
        transport=lambda _config: transport,
    )
    return Batcher(_seams=seams, **{"api_key": "hh_test", **settings})


def check_ledger(batcher: Batcher) -> Statistics:
    """Assert that the numbers add up, and return them."""
    numbers = batcher.statistics()
    assert numbers.offered == numbers.accepted + sum(numbers.refused.values())
    assert numbers.accepted == (
        numbers.delivered + sum(numbers.dropped.values()) + numbers.unconfirmed + numbers.held
    )
    return numbers


def fates(batcher: Batcher) -> dict[str, int]:
    """Return how many events met which fate, without those that nothing met; the numbers add up."""
    numbers = check_ledger(batcher)
    named = {
        "delivered": numbers.delivered,
        "unconfirmed": numbers.unconfirmed,
        "held": numbers.held,
        **numbers.dropped,
    }
    return {name: events for name, events in named.items() if events}
