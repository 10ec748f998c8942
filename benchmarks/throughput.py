"""Events to a server on another core: events a second and CPU per event, beside two loops written by hand.

All take turns in every round; ratios are of the same round, and their median is printed. `nothing` makes
the events and throws them away: its cost is taken off the others.
"""

import asyncio
import contextlib
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec

from benchmarks import sink
from benchmarks.data import encode_seconds, make_event
from honeyhive_batcher import Batcher

_EVENTS = 20_000
_ROUNDS = 5
_BATCH = 100
_PATH = "/events/model/batch"
_HEADERS = {"Authorization": "Bearer hh_bench"}

Contestant = Callable[[str], Awaitable[None]]


async def nothing(_url: str) -> None:
    """Make the events and throw them away."""
    for number in range(_EVENTS):
        make_event(number)
        if number % _BATCH == 0:
            await asyncio.sleep(0)


async def batcher(url: str) -> None:
    """Hand them to a `Batcher` with its default settings."""
    async with Batcher(api_key="hh_bench", base_url=url) as ours:
        for number in range(_EVENTS):
            await ours.put(make_event(number))
            if number % _BATCH == 0:
                await asyncio.sleep(0)
        await ours.flush()


async def usual_loop(url: str) -> None:
    """What most people write: a queue, `wait_for`, and `post(json=...)`; no retry, no bound in bytes."""
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(10_000)

    async def send() -> None:
        async with aiohttp.ClientSession(headers=_HEADERS) as session:
            while True:
                events = [await queue.get()]
                with contextlib.suppress(TimeoutError):
                    while len(events) < _BATCH:
                        events.append(await asyncio.wait_for(queue.get(), 0.1))
                async with session.post(url + _PATH, json={"model_events": events}) as answer:
                    await answer.read()
                for _ in events:
                    queue.task_done()

    await _through(queue, [send])


async def careful_loop(url: str) -> None:
    """The best one would write without any guarantee: four senders, msgspec, no waiting per event."""
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(10_000)
    encoder = msgspec.json.Encoder()

    async def send() -> None:
        async with aiohttp.ClientSession(headers=_HEADERS) as session:
            while True:
                events = [await queue.get()]
                while len(events) < _BATCH and not queue.empty():
                    events.append(queue.get_nowait())
                body = encoder.encode({"model_events": events})
                async with session.post(url + _PATH, data=body) as answer:
                    await answer.read()
                for _ in events:
                    queue.task_done()

    await _through(queue, [send] * 4)


async def _through(
    queue: asyncio.Queue[dict[str, Any]], senders: list[Callable[[], Awaitable[None]]]
) -> None:
    tasks = [asyncio.ensure_future(send()) for send in senders]
    for number in range(_EVENTS):
        await queue.put(make_event(number))
        if number % _BATCH == 0:
            await asyncio.sleep(0)
    await queue.join()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Run(msgspec.Struct):
    """What one contestant did in one round."""

    seconds: float
    encodes: float
    counts: sink.Counts


async def _count(url: str) -> sink.Counts:
    async with aiohttp.ClientSession() as session, session.get(url + "/count") as answer:
        return msgspec.json.decode(await answer.read(), type=sink.Counts)


def _run(contestant: Contestant, url: str) -> _Run:
    gc.collect()
    before = encode_seconds()
    began, began_cpu = time.perf_counter(), time.process_time()
    asyncio.run(contestant(url))  # type: ignore[arg-type]
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    unit = (before + encode_seconds()) / 2
    return _Run(seconds=seconds, encodes=cpu / _EVENTS / unit, counts=asyncio.run(_count(url)))


def main() -> None:
    """Print the table."""
    sink.pin(0)
    contestants = (nothing, careful_loop, usual_loop, batcher)
    runs: dict[str, list[_Run]] = {contestant.__name__: [] for contestant in contestants}
    with sink.running() as url:
        asyncio.run(batcher(url))  # a warm-up of everything that is made once
        asyncio.run(_count(url))
        for _ in range(_ROUNDS):
            for contestant in contestants:
                runs[contestant.__name__].append(_run(contestant, url))
    print(f"{_EVENTS} events end to end, bodies of up to {_BATCH}, medians of {_ROUNDS} rounds")
    print(f"  {'':<14}{'events/s':>10}{'net encodes/event':>19}{'requests':>10}{'delivered':>12}{'twice':>7}")
    for name, own in runs.items():
        pairs = list(zip(own, runs["nothing"], strict=True))
        net = statistics.median(run.encodes - base.encodes for run, base in pairs)
        rate = statistics.median(_EVENTS / run.seconds for run in own)
        last = own[-1].counts
        print(
            f"  {name:<14}{rate:>10,.0f}{net:>19.2f}{last.requests:>10}{last.distinct:>12}"
            f"{last.events - last.distinct:>7}"
        )
    for name in ("usual_loop", "careful_loop"):
        times = [
            theirs.seconds / ours.seconds for theirs, ours in zip(runs[name], runs["batcher"], strict=True)
        ]
        print(f"  batcher is {statistics.median(times):.2f} times as fast as {name} (same round)")


if __name__ == "__main__":
    main()
