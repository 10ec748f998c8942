"""One batcher that has little to do: idle, a single event, a single batch, a queue that only fills."""

import asyncio
import threading
import time

import msgspec

from benchmarks import sink, turns
from benchmarks.data import make_event
from benchmarks.meter import Meter, memory
from benchmarks.peers.contestant import Options, make
from honeyhive_batcher import Batcher

_FOR_EVER = 3_600.0
_ROOM = 10**9
_BATCH = 100


class Idle(msgspec.Struct, frozen=True):
    """What a contestant does while nothing is asked of it."""

    wake_ups: int
    has_timer: bool
    cpu: float
    """Seconds."""


def idle(name: str, url: str, seconds: float, pause: float | None) -> Idle:
    """Leave a contestant alone, so long after a batch was delivered; before anything was if None."""

    async def main(sleeps: turns.Sleeps) -> Idle:
        loop = asyncio.get_running_loop()
        contestant = make(name, Options(url=url))
        await contestant.start()
        if pause is not None:
            for number in range(_BATCH):
                contestant.push(make_event(number))
            await contestant.settle()
        await asyncio.sleep(pause or 0.1)  # what was just done comes to its end
        over = asyncio.Event()

        def end() -> None:  # from another thread: a timer of our own would be one of the loop's
            time.sleep(seconds)
            loop.call_soon_threadsafe(over.set)

        thread = threading.Thread(target=end)
        thread.start()
        await asyncio.sleep(0)
        sleeps.clear()
        with Meter() as meter:
            await over.wait()
        found = Idle(sleeps.wake_ups - 1, sleeps.has_timer, meter.cpu)
        thread.join()
        await contestant.stop()
        return found

    return turns.run(main)


def first_byte(url: str, times: int) -> list[float]:
    """Return the seconds from a flush of one event to its first byte at the sink, in order of size."""
    return asyncio.run(_first_byte(url, times))


async def _first_byte(url: str, times: int) -> list[float]:
    taken = []
    async with Batcher(api_key="hh_bench", base_url=url, flush_interval=_FOR_EVER) as batcher:
        batcher.push(make_event(0))
        await batcher.flush()
        for number in range(times):
            await asyncio.sleep(0.02)
            sink.count(url)
            batcher.push(make_event(number))
            began = time.monotonic()
            await batcher.flush()
            taken.append(sink.count(url).first_byte_at - began)
    return sorted(taken)


def flush_turns(url: str, times: int) -> list[float]:
    """Return the longest turn of the loop in each of so many flushes of a full batch, in order of size."""

    async def main(sleeps: turns.Sleeps) -> list[float]:
        longest = []
        async with Batcher(api_key="hh_bench", base_url=url, flush_interval=_FOR_EVER) as batcher:
            for number in range(times + 1):
                for event in range(_BATCH - 1):
                    batcher.push(make_event(event))
                await asyncio.sleep(0.005)  # the pushes are the program's own turn
                batcher.push(make_event(number))
                sleeps.clear()
                await batcher.flush()
                longest.append(sleeps.longest_turn)
        return sorted(longest[1:])  # the first one imports, resolves and connects

    return turns.run(main)


def held_bytes(events: int) -> float:
    """Return the bytes of memory for each waiting event of 1,062 bytes."""
    batcher = Batcher(test_mode=True, max_queue_events=_ROOM, max_queue_bytes=_ROOM, flush_interval=_FOR_EVER)
    texts = [_sized(number) for number in range(_BATCH)]
    for event in texts:
        batcher.push(event)
    before = memory()
    for number in range(events):
        batcher.push(_sized(number))
    assert batcher.statistics().held == events + _BATCH
    return (memory() - before) / events


def _sized(number: int) -> dict[str, object]:
    return make_event(0) | {"metadata": {"n": f"{number:07}"}}
