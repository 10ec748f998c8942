"""All events at once: an asyncio program makes each and hands it over, as fast as it can.

Time ends when the last event reaches the sink, for everybody alike; some peers take seconds to notice.
"""

import asyncio

import msgspec

from benchmarks import sink
from benchmarks.data import DOCUMENTED, encode_seconds, make_event
from benchmarks.meter import Meter
from benchmarks.peers.contestant import Contestant, Options, make

_WARM_UP = 200
_PER_TURN = 100
"""The program lets others run after as many events."""


class Blast(msgspec.Struct, frozen=True):
    """What one contestant did in one round."""

    given: int
    seconds: float
    """From the first event given to the last one at the sink."""
    cpu: float
    """Seconds of CPU, of all threads."""
    unit: float
    """CPU seconds of one msgspec encode of the same event in the same process, before and after."""
    peak_growth: int
    full_collections: int
    longest_pause: float
    counts: sink.Counts

    @property
    def delivered(self) -> int:
        return self.counts.distinct

    @property
    def rate(self) -> float:
        """Events a second: of those delivered, where any were."""
        return (self.delivered or self.given) / self.seconds

    @property
    def encodes(self) -> float:
        """CPU for each event delivered, in encodes; for each event given where nothing is ever delivered."""
        return self.cpu / (self.delivered or self.given) / self.unit


def blast(name: str, options: Options, events: int, size: int = DOCUMENTED) -> Blast:
    """Run one contestant; in a process of its own, see `alone`."""
    return asyncio.run(_blast(name, options, events, size))


async def _blast(name: str, options: Options, events: int, size: int) -> Blast:
    contestant = make(name, options)
    await contestant.start()
    await _give(contestant, _WARM_UP, size)
    await contestant.settle()
    sink.count(options.url)
    before = encode_seconds(size)
    with Meter() as meter:
        await _give(contestant, events, size)
        await contestant.settle()
    unit = (before + encode_seconds(size)) / 2
    counts = sink.count(options.url)
    await contestant.stop()
    return Blast(
        given=events,
        seconds=(counts.last_at or meter.ended_at) - meter.began_at,
        cpu=meter.cpu,
        unit=unit,
        peak_growth=meter.peak_growth,
        full_collections=meter.full_collections,
        longest_pause=meter.longest_pause,
        counts=counts,
    )


async def _give(contestant: Contestant, events: int, size: int) -> None:
    give = contestant.give
    for number in range(events):
        await give(make_event(number, size))
        if number % _PER_TURN == 0:
            await asyncio.sleep(0)
