"""How many requests one batcher has under way at a server that serves a few at once; in virtual time.

There is always more to send. The ideal is what the server can take.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from msgspec import Struct

from honeyhive_batcher.config import Config
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import Reply, Response
from tests.reliability.rows import Row, Size
from tests.reliability.storm import Time

SERVES = 5
LATENCY = 0.1
WAITING = 1.5
"""Parts of the server's own time that a request takes at most, waiting included, at one that says nothing."""
OK = Response(status=200)

Server: TypeAlias = Callable[[int, random.Random], tuple[Reply, float]]
"""Returns the reply to a request that is one of so many under way, and how long it takes."""


def defers(status: int) -> Server:
    def serve(under_way: int, _: random.Random) -> tuple[Reply, float]:
        return (OK if under_way <= SERVES else Response(status=status)), LATENCY

    return serve


def slows_down(under_way: int, chance: random.Random) -> tuple[Reply, float]:
    """What is too much waits for what is served."""
    return OK, LATENCY * max(1.0, under_way / SERVES) * (0.9 + 0.2 * chance.random())


def keeps_up(_: int, chance: random.Random) -> tuple[Reply, float]:
    """Latency varies a lot, and has nothing to do with what is under way."""
    return OK, LATENCY * chance.lognormvariate(0.0, 0.5)


def fails_by_chance(_: int, chance: random.Random) -> tuple[Reply, float]:
    return (OK if chance.random() < 2 / 3 else Response(status=503)), LATENCY


class Outcome(Struct, frozen=True):
    """What a while at a server came to."""

    mean: float
    """Requests under way, on average over time."""
    most: int
    throughput: float
    """Batches delivered in a second."""
    given_up: int


def live_at(server: Server, seconds: float, *, max_in_flight: int = 16, seed: int = 1) -> Outcome:
    """Send as much as the engine will."""
    time, chance = Time(), random.Random(seed)
    config = Config.of(api_key="hh_test", max_batch_events=1, max_in_flight=max_in_flight)
    intake = Intake(config.queue, config.batch)
    engine = Engine(intake, max_in_flight=max_in_flight, retry=config.retry, jitter=chance.random)
    under_way = most = 0
    area = since = 0.0

    def count(change: int) -> None:
        nonlocal under_way, most, area, since
        area += under_way * (time.now - since)
        since = time.now
        under_way += change
        most = max(most, under_way)

    def look() -> None:
        while intake.ledger.held_events < 100:
            intake.admit(Fragment(b"{}", ""), SESSIONLESS, time.now)
        for attempt in engine.poll(time.now):
            count(1)
            reply, after = server(under_way, chance)
            time.at(time.now + after, take, attempt, reply)
        wake_at = engine.wake_at()
        if wake_at is not None:
            time.at(wake_at, look)

    def take(attempt: Any, reply: Reply) -> None:
        count(-1)
        engine.complete(attempt, reply, time.now)
        look()

    time.at(0.0, look)
    time.run(seconds)
    count(0)
    numbers = intake.statistics()
    return Outcome(
        mean=area / seconds,
        most=most,
        throughput=numbers.delivered / seconds,
        given_up=sum(numbers.dropped.values()) + numbers.unconfirmed,
    )


def rows(size: Size) -> Iterator[Row]:
    """Send to servers that push back, one that keeps up, and one that fails by chance."""
    seconds = 60.0 if size is Size.QUICK else 1800.0
    for status in (429, 503):
        seen = live_at(defers(status), seconds)
        share = seen.throughput / (SERVES / LATENCY)
        yield Row(
            bar=14,
            what=f"a server that answers {status} to more than {SERVES} at once: under way, and throughput",
            figure=f"{seen.mean:.1f} on average; {share:.0%} of the ideal; {seen.given_up} given up",
            bound="2.2 to 5.0; at least 60%; 0",
            holds=2.2 <= seen.mean <= 5.0 and share >= 0.6 and not seen.given_up,
        )
    # It refuses nothing, so five are known to be enough only by what the sixth and the seventh wait: half as
    # long again is the least that chance does not do as well. Never so few that it would be idle by much.
    seen = live_at(slows_down, seconds)
    share = seen.throughput / (SERVES / LATENCY)
    least, most = SERVES * 0.8, SERVES * WAITING
    yield Row(
        bar=14,
        what=f"a server that lets wait what is more than {SERVES} at once: under way, and throughput",
        figure=f"{seen.mean:.1f} on average; {share:.0%} of the ideal; {seen.given_up} given up",
        bound=f"{least:.1f} to {most:.1f}; at least 60%; 0",
        holds=least <= seen.mean <= most and share >= 0.6 and not seen.given_up,
    )
    seen = live_at(keeps_up, seconds)
    yield Row(
        bar=14,
        what="a server that keeps up, with a latency that varies by itself: under way",
        figure=f"{seen.mean:.1f} on average, {seen.most} at most",
        bound="at least 15 of 16; never more than 16",
        holds=seen.mean >= 15.0 and seen.most <= 16,
    )
    alone = live_at(lambda _, chance: fails_by_chance(1, chance), seconds, max_in_flight=1)
    share = alone.throughput * LATENCY / (2 / 3)
    yield Row(
        bar=13,
        what="a server that fails every third request by chance, one request at a time: throughput",
        figure=f"{share:.0%} of the ideal",
        bound="at least 60%",
        holds=share >= 0.6,
    )
