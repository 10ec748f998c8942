"""So many events a second, as an asyncio service would make them: what its loop feels, and what arrives."""

import asyncio
import time

import msgspec

from benchmarks import sink
from benchmarks.data import DOCUMENTED, make_event
from benchmarks.heart import beating
from benchmarks.meter import Meter
from benchmarks.peers.contestant import Contestant, Options, make

_WARM_UP = 200
_TICK = 0.001


class Paced(msgspec.Struct, frozen=True):
    """What one contestant did in one round."""

    given: int
    seconds: float
    """How long it took: longer than it should where a contestant held the program up."""
    cpu: float
    lags: list[float]
    """Seconds from a knock at the loop to its answer, in order of size."""
    full_collections: int
    longest_pause: float
    counts: sink.Counts


def paced(name: str, options: Options, rate: int, seconds: float, size: int = DOCUMENTED) -> Paced:
    """Run one contestant; in a process of its own, see `alone`."""
    return asyncio.run(_paced(name, options, rate, seconds, size))


async def _paced(name: str, options: Options, rate: int, seconds: float, size: int) -> Paced:
    contestant = make(name, options)
    await contestant.start()
    for number in range(_WARM_UP):
        contestant.push(make_event(number, size))
    await contestant.settle()
    sink.count(options.url)
    async with beating() as lags:
        with Meter() as meter:
            await asyncio.sleep(10 * _TICK)  # the meter began with a collection
            lags.clear()
            given = await _give(contestant, rate, seconds, size)
        seen = sorted(lags)
    await contestant.settle()
    counts = sink.count(options.url)
    await contestant.stop()
    return Paced(
        given=given,
        seconds=meter.ended_at - meter.began_at,
        cpu=meter.cpu,
        lags=seen,
        full_collections=meter.full_collections,
        longest_pause=meter.longest_pause,
        counts=counts,
    )


async def _give(contestant: Contestant, rate: int, seconds: float, size: int) -> int:
    """Push what is due at each tick, and all of it in the end; return how many."""
    push, given, whole = contestant.push, 0, int(rate * seconds)
    began = time.monotonic()
    while given < whole:
        due = min(whole, int((time.monotonic() - began) * rate), given + rate // 100)
        while given < due:
            push(make_event(given, size))
            given += 1
        await asyncio.sleep(_TICK)
    return given
