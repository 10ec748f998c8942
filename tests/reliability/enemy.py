"""A server in memory that does everything a server and the way to it can do, by chance, and keeps a record.

What it does with a request and what it says are decided when the request comes. Between the two lies the
time in which the sender may be cancelled. It never lies: what it says about an event is so.
"""

import asyncio
import bisect
import enum
import random
from collections.abc import Callable
from typing import Any, TypeAlias, final

import msgspec
from msgspec import Struct

from honeyhive_batcher.core.model import Failure, Reply, Response
from honeyhive_batcher.core.request import Request
from honeyhive_batcher.runtime.transport import Transport
from tests.reliability.checker import Arrival, Record, Told, arrival

POISON = b'"poison":true'
"""An event that holds this is refused, with all that travel with it."""


class Weather(enum.Enum):
    """What the server is like for a while."""

    CLEAR = "clear"
    FLAKY = "flaky"
    UNREACHABLE = "unreachable"
    BLACK_HOLE = "black hole"
    BUSY = "busy"
    BROKEN = "broken"
    PARTIAL = "partial"
    LOCKED = "locked"
    REFUSING = "refusing"


class Climate(Struct, frozen=True, kw_only=True):
    """What the weather is made of."""

    changes: tuple[float, ...]
    """Instants at which the weather changes."""
    spells: tuple[Weather, ...]
    """The weather after each of them."""
    faults: float
    """How likely a fault is in clear weather."""
    latency: float
    max_body: int
    """Bytes that the server takes in one body."""
    knows_ids: bool
    """Whether it looks for an event's id before it stores it, and answers 409 if it has it."""
    max_retry_after: float
    request_timeout: float

    def at(self, instant: float) -> Weather:
        """Return the weather at an instant; it is clear in the beginning."""
        spell = bisect.bisect_right(self.changes, instant)
        return self.spells[spell - 1] if spell else Weather.CLEAR


class Plan(Struct, kw_only=True):
    """What will happen to one request."""

    reply: Reply
    told: list[Told]
    stores: list[bool]
    delay: float
    costs_a_try: bool = False
    is_held: bool = False


Fault: TypeAlias = Callable[[Arrival], Plan]


@final
class Enemy:
    """The server, for all runs of one batcher."""

    def __init__(self, climate: Climate, record: Record, chance: random.Random) -> None:
        self.climate = climate
        self.record = record
        self.is_healed = False
        self.runs = 0
        self.is_hurried = False
        """Whether somebody flushed or closed in this run."""
        self.open: dict[int, asyncio.Task[Any]] = {}
        """The requests under way, by the number of their beginning."""
        self._stored: set[str] = set()
        self._chance = chance
        self._faults: dict[Weather, list[Fault]] = {
            Weather.UNREACHABLE: [self._refuse_connection, self._refuse_connection, self._lose_connection],
            Weather.BLACK_HOLE: [self._swallow],
            Weather.BUSY: [self._push_back],
            Weather.BROKEN: [self._break, self._reset],
            Weather.PARTIAL: [self._take_some],
            Weather.LOCKED: [self._lock_out],
            Weather.REFUSING: [self._refuse_all],
            Weather.CLEAR: [
                self._refuse_connection,
                self._lose_connection,
                self._swallow,
                self._push_back,
                self._break,
                self._reset,
                self._reset,
                self._take_some,
                self._take_some,
                self._take_foreign,
                self._say_no_success,
                self._dawdle,
            ],
        }
        self._faults[Weather.FLAKY] = self._faults[Weather.CLEAR]

    def connect(self) -> "Way":
        """Return a way to the server for another run."""
        self.runs += 1
        self.is_hurried = False
        return Way(self, self.runs)

    async def serve(self, request: Request, run: int) -> Reply:
        """Do with a request what the weather is like."""
        loop = asyncio.get_running_loop()
        come = arrival(request.method, request.body, at=loop.time(), run=run)
        come.is_hurried = self.is_hurried
        self.record.begin(come)
        plan = self._plan(come)
        for each, stores in zip(come.carried, plan.stores, strict=True):
            each.is_stored = stores and not (self.climate.knows_ids and each.event_id in self._stored)
            self._stored |= {each.event_id} if stores else set()
        task = asyncio.current_task()
        assert task is not None
        self.open[come.began] = task
        try:
            await asyncio.sleep(plan.delay)
        except asyncio.CancelledError:
            come.reply = "cancelled"
            raise
        else:
            for each, told in zip(come.carried, plan.told, strict=True):
                each.told = told
            come.reply, come.costs_a_try, come.is_held = _words(plan.reply), plan.costs_a_try, plan.is_held
            if isinstance(plan.reply, Response):
                come.retry_after = plan.reply.retry_after
            return plan.reply
        finally:
            del self.open[come.began]
            self.record.end(come, loop.time())

    def _plan(self, come: Arrival) -> Plan:
        weather = Weather.CLEAR if self.is_healed else self.climate.at(come.at)
        is_fault = weather is not Weather.CLEAR and (weather is not Weather.FLAKY or self._often(0.6))
        is_fault |= self._often(self.climate.faults) and not self.is_healed
        return self._chance.choice(self._faults[weather])(come) if is_fault else self._answer(come)

    def _answer(self, come: Arrival) -> Plan:
        """What a server in its right mind does."""
        if (
            self.climate.knows_ids
            and come.method == "POST"
            and set(come.ids) <= self._stored
            and len(come.ids) == 1
        ):
            return self._none(come, Response(status=409), Told.CONFIRMED)
        if self._would_take(come):
            return self._take_all(come)
        if len(come.body) > self.climate.max_body:
            return self._none(come, Response(status=413))
        return self._refuse_all(come)

    def _would_take(self, come: Arrival) -> bool:
        return len(come.body) <= self.climate.max_body and not any(
            POISON in each.body for each in come.carried
        )

    # Chance.

    def _often(self, probability: float) -> bool:
        return self._chance.random() < probability

    def _delay(self) -> float:
        return self.climate.latency * self._chance.choice((0.0, 0.5, 1.0, 1.0, 2.0))

    def _asked(self) -> float | None:
        if self._often(0.5):
            return None
        return self._chance.choice((0.0, 0.3, 1.0)) * self.climate.max_retry_after

    # What it may do. A fault that leaves open whether the events arrived stores all or nothing.

    def _none(self, come: Arrival, reply: Reply, told: Told = Told.REFUSED) -> Plan:
        size = len(come.carried)
        return Plan(reply=reply, told=[told] * size, stores=[False] * size, delay=self._delay())

    def _unclear(self, come: Arrival, reply: Reply, delay: float | None = None) -> Plan:
        size, stores = len(come.carried), self._often(0.5) and self._would_take(come)
        delay = self._delay() if delay is None else delay
        return Plan(
            reply=reply, told=[Told.UNKNOWN] * size, stores=[stores] * size, delay=delay, costs_a_try=True
        )

    def _refuse_connection(self, come: Arrival) -> Plan:
        return self._none(come, Failure(cause="connection refused", unsent=True), Told.UNSENT)

    def _lose_connection(self, come: Arrival) -> Plan:
        plan = self._none(come, Failure(cause="no connection in time", unsent=True), Told.UNSENT)
        plan.delay = self.climate.request_timeout / 2
        return plan

    def _swallow(self, come: Arrival) -> Plan:
        timeout = self.climate.request_timeout
        return self._unclear(come, Failure(cause="no answer in time", unsent=False), timeout)

    def _reset(self, come: Arrival) -> Plan:
        return self._unclear(come, Failure(cause="connection reset", unsent=False))

    def _break(self, come: Arrival) -> Plan:
        status = self._chance.choice((500, 502, 504, 520))
        body = b"<html>oops</html>" if self._often(0.5) else b""
        return self._unclear(come, Response(status=status, body=body, retry_after=self._asked()))

    def _say_no_success(self, come: Arrival) -> Plan:
        return self._unclear(come, Response(status=200, body=b'{"success":false}'))

    def _push_back(self, come: Arrival) -> Plan:
        status = self._chance.choice((429, 503, 408, 425))
        plan = self._none(come, Response(status=status, retry_after=self._asked()))
        plan.costs_a_try = True
        return plan

    def _lock_out(self, come: Arrival) -> Plan:
        plan = self._none(come, Response(status=self._chance.choice((401, 403, 302))))
        plan.is_held = True
        return plan

    def _refuse_all(self, come: Arrival) -> Plan:
        return self._none(come, Response(status=self._chance.choice((400, 422))))

    def _dawdle(self, come: Arrival) -> Plan:
        plan = self._answer(come)
        plan.delay = self.climate.request_timeout * 0.9
        return plan

    def _take_all(self, come: Arrival) -> Plan:
        size = len(come.carried)
        events = [each.event_id for each in come.carried if each.event_id != come.group]
        style = self._chance.choice(("named", "named", "loud", "silent", "html", "foreign"))
        body = b""
        if style in {"named", "loud", "foreign"} and events:
            if style == "loud":
                events = [name.upper() for name in events]
            elif style == "foreign":
                events = [f"server-{number}" for number, _ in enumerate(events)]
            body = msgspec.json.encode({"success": True, "event_ids": events})
        elif style == "html":
            body = b"<html>thanks</html>"
        status = 200 if body else 204
        return Plan(
            reply=Response(status=status, body=body),
            told=[Told.CONFIRMED] * size,
            stores=[True] * size,
            delay=self._delay(),
        )

    def _take_some(self, come: Arrival) -> Plan:
        """Name what was taken; the messages about the rest may account for all of it or not."""
        events = [each for each in come.carried if each.event_id != come.group]
        if not events or not self._would_take(come):
            return self._reset(come)
        taken = [each for each in events if self._often(0.5)]
        left = len(events) - len(taken)
        is_accounted = self._often(0.6)
        if not taken and not is_accounted:
            taken, left = events[:1], len(events) - 1
        facts: dict[str, Any] = {"success": True, "event_ids": [each.event_id for each in taken]}
        if left:
            facts["errors"] = ["Could not create event"] * (left if is_accounted else left - 1)
        names = {each.event_id for each in taken} | ({come.group} if taken and come.group else set())
        stores = [each.event_id in names for each in come.carried]
        return Plan(
            reply=Response(status=self._chance.choice((500, 500, 200)), body=msgspec.json.encode(facts)),
            told=[Told.CONFIRMED if stored else Told.REFUSED for stored in stores],
            stores=stores,
            delay=self._delay(),
            costs_a_try=bool(left),
        )

    def _take_foreign(self, come: Arrival) -> Plan:
        """Take some, and name all or most of them by other ids: nobody can tell which those are."""
        events = [each.event_id for each in come.carried if each.event_id != come.group]
        if len(events) < 2 or not self._would_take(come):
            return self._reset(come)
        taken = self._chance.sample(events, len(events) - 1)
        own = set(taken[: self._chance.choice((0, 0, 1))]) if len(taken) > 1 else set()
        names = [name if name in own else f"server-{name}" for name in taken]
        facts = {"success": True, "event_ids": names}
        sure = own | {come.group}  # the properties of a session come with any of its events
        return Plan(
            reply=Response(status=200, body=msgspec.json.encode(facts)),
            told=[Told.CONFIRMED if name in sure else Told.UNKNOWN for name in come.ids],
            stores=[name in taken or name == come.group for name in come.ids],
            delay=self._delay(),
        )


def _words(reply: Reply) -> str:
    if isinstance(reply, Failure):
        return reply.cause
    return f"HTTP {reply.status} {reply.body.decode()}"


@final
class Way(Transport):
    """The transport of one run."""

    def __init__(self, enemy: Enemy, run: int) -> None:
        self._enemy = enemy
        self._run = run

    async def open(self) -> None:
        """Nothing to open."""

    async def send(self, request: Request) -> Reply:
        return await self._enemy.serve(request, self._run)

    async def close(self) -> None:
        """Nothing to close."""
