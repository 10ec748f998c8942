"""A day without the server, in virtual time: an engine without a loop, and a queue that is soon full.

Nothing that fits is lost: the drops are what does not fit, by the policy for it. And whole batchers whose
wall clock jumps by a day now and then, which changes nothing but what a date in a Retry-After asks for.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from typing import TypeAlias
from unittest import mock

from msgspec import Struct

from honeyhive_batcher.core import wire
from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Reply, Response
from tests.core.rig import UNSENT, Rig, Sent, answer, event
from tests.fakes import OK, FakeTransport, check_ledger, make_batcher
from tests.reliability.rows import Row, Size
from tests.virtual_time import now, run_virtually

DAY = 86_400.0
AFTERWARDS = 300.0
MAX_ATTEMPTS = 3_000
_LATENCY = 0.05


class Day(Struct, frozen=True):
    """What became of a day."""

    attempts: int
    """Requests while the server was away."""
    first_delivery_after: float
    offered_before: int
    """Events offered before the first was delivered."""
    capacity: int
    most_bytes: int
    max_bytes: int
    backoff_max: float
    statistics: Statistics

    @property
    def overflow(self) -> int:
        """Events that could not be kept, whichever they are."""
        return max(0, self.offered_before - self.capacity)


def live_through(trouble: Reply, overflow: str, *, per_second: int, max_bytes: int) -> Day:
    """Push for a day of trouble and some minutes of health."""
    size = len(event("00000000"))
    rig = Rig(jitter=random.Random(24).random, max_queue_bytes=max_bytes, overflow=overflow)
    rig.intake.ledger.keep_settlements = False
    seen = {"attempts": 0, "bytes": 0, "before": 0}
    healed: list[float] = []

    def server(sent: Sent) -> Reply:
        seen["bytes"] = max(seen["bytes"], rig.statistics.held_bytes)
        if rig.now < DAY:
            seen["attempts"] += 1
            rig.sent.clear()
            return trouble
        if not healed:
            healed.append(rig.now + _LATENCY)
        return sent.all_named

    pushes = (
        (number / per_second, f"{number:08}") for number in range(round(per_second * (DAY + AFTERWARDS)))
    )
    rig.serve(server, latency=_LATENCY, pushes=pushes, max_requests=10**9)
    return Day(
        attempts=seen["attempts"],
        first_delivery_after=healed[0] - DAY,
        offered_before=int(healed[0] * per_second) + 1,
        capacity=min(rig.config.queue.max_queue_events, max_bytes // size),
        most_bytes=seen["bytes"],
        max_bytes=max_bytes,
        backoff_max=rig.config.retry.backoff_max,
        statistics=rig.statistics,
    )


Clock: TypeAlias = Callable[[], float]

_EPOCH = 1_800_000_000.0
_PAUSE = 10.0
"""Seconds that the server asks to wait for, as a date by its own clock, which is right."""


def steady() -> float:
    """Tell the time."""
    return _EPOCH + now()


def jumping() -> float:
    """Tell the time of now, of the same time tomorrow or of yesterday, something else every seven seconds."""
    return steady() + DAY * (int(now() / 7.0) % 3 - 1)


def fast_by(error: float) -> float:
    """Tell a time that is wrong."""
    return steady() + error


class Story(Struct, frozen=True):
    """What one batcher did."""

    sent_at: tuple[float, ...]
    lost: int

    @property
    def longest_pause(self) -> float:
        """Seconds between two requests, at most."""
        return max(late - early for early, late in itertools.pairwise(self.sent_at))


def push_through(trouble: Callable[[], Reply], clock: Clock, *, length: float, afterwards: float) -> Story:
    """Push an event a second through a trouble and a while longer, with a wall clock that is `clock`."""
    begins_at = 60.0
    ends_at = begins_at + length

    async def serve() -> Reply:
        return trouble() if begins_at <= now() < ends_at else OK

    async def push() -> Story:
        transport = FakeTransport(latency=_LATENCY, otherwise=serve)
        with mock.patch.object(time, "time", clock):
            async with make_batcher(transport, jitter=0.5) as batcher:
                while now() < ends_at + afterwards:
                    batcher.push({"event_type": "model", "event_name": "chat"})
                    await asyncio.sleep(1.0)
            numbers = check_ledger(batcher)
        return Story(sent_at=tuple(transport.instants), lost=numbers.offered - numbers.delivered)

    return run_virtually(push)


def asks_for_a_pause() -> Reply:
    """Answer with a date for the next request, which the transport reads by the clock of the host."""
    date = formatdate(steady() + _PAUSE, usegmt=True)
    return Response(status=503, retry_after=wire.retry_after(date, wall=time.time()))


def clock_rows(outage: float) -> Iterator[Row]:
    """Jump while all is well and through an outage; then read dates by clocks that are wrong."""
    right, wrong = (
        push_through(lambda: UNSENT, clock, length=outage, afterwards=AFTERWARDS)
        for clock in (steady, jumping)
    )
    moved = len(set(right.sent_at) ^ set(wrong.sent_at))
    yield Row(
        bar=7,
        what=f"a wall clock that jumps by a day every 7 s, with an outage of {outage:.0f} s: requests",
        figure=f"{len(wrong.sent_at)}, {moved} at another instant; {wrong.lost} events lost",
        bound="0 at another instant than with a steady clock; 0 events lost",
        holds=moved == 0 and wrong.lost == 0 and len(wrong.sent_at) > outage / 30.0,
    )
    for name, error, least, most in (
        ("right", 0.0, _PAUSE - 1.0, _PAUSE + 1.0),
        ("a day ahead", DAY, 0.0, _PAUSE),
        ("a day behind", -DAY, wire.MAX_RETRY_AFTER, wire.MAX_RETRY_AFTER + 1.0),
    ):
        story = push_through(asks_for_a_pause, partial(fast_by, error), length=1.5, afterwards=most + 60.0)
        yield Row(
            bar=7,
            what=f"a Retry-After with a date in {_PAUSE:g} s, read by a clock that is {name}: longest pause",
            figure=f"{story.longest_pause:.1f} s; {story.lost} events lost",
            bound=f"{least:g} to {most:g} s; 0 events lost",
            holds=least <= story.longest_pause <= most and story.lost == 0,
        )


def rows(size: Size) -> Iterator[Row]:
    """Live through days of two kinds of trouble, each with the other policy."""
    quick = size is Size.QUICK
    per_second, max_bytes = (1, 40_000) if quick else (100, 50 * 1024 * 1024)
    for name, trouble, overflow in (
        ("refused connections", UNSENT, "drop_newest"),
        ("503", answer(503), "drop_oldest"),
    ):
        day = live_through(trouble, overflow, per_second=per_second, max_bytes=max_bytes)
        what = f"a day of {name} at {per_second} events/s, {overflow}"
        yield Row(
            bar=7,
            what=f"{what}: requests",
            figure=f"{day.attempts}",
            bound=f"at most {MAX_ATTEMPTS}",
            holds=day.attempts <= MAX_ATTEMPTS,
        )
        yield Row(
            bar=7,
            what=f"{what}: seconds from healing to the first delivery",
            figure=f"{day.first_delivery_after:.1f} s",
            bound=f"at most {day.backoff_max:g} s",
            holds=day.first_delivery_after <= day.backoff_max + _LATENCY,
        )
        numbers = day.statistics
        lost = {"refused": sum(numbers.refused.values()), "dropped": sum(numbers.dropped.values())}
        wanted = {"refused": 0, "dropped": 0}
        wanted["refused" if overflow == "drop_newest" else "dropped"] = day.overflow
        reasons = {*numbers.refused, *numbers.dropped}
        yield Row(
            bar=7,
            what=f"{what}: events lost",
            figure=f"{lost['refused']} refused, {lost['dropped']} dropped, {numbers.unconfirmed} unconfirmed",
            bound=f"{wanted['refused']} refused, {wanted['dropped']} dropped: what did not fit",
            holds=lost == wanted
            and reasons <= {"queue_full", "evicted"}
            and numbers.delivered == numbers.offered - day.overflow,
        )
        yield Row(
            bar=7,
            what=f"{what}: most bytes held",
            figure=f"{day.most_bytes}",
            bound=f"at most {day.max_bytes}",
            holds=day.most_bytes <= day.max_bytes,
        )
    yield from clock_rows(outage=300.0 if quick else 7200.0)
