"""One batcher with many sessions alive, much held, or many threads pushing: each in a process of its own."""

import asyncio
import threading
import time

import msgspec

from benchmarks import sink
from benchmarks.data import encode_seconds, make_event
from benchmarks.meter import Meter
from honeyhive_batcher import Batcher

_WARM_UP = 200
_FOR_EVER = 3_600.0
_ROOM = 10**9


class Crowd(msgspec.Struct, frozen=True):
    """What it cost."""

    net: float
    """Encodes of CPU for each event delivered, less making it."""
    given: int
    counts: sink.Counts


def _batcher(url: str, **settings: float) -> Batcher:
    roomy = {"max_queue_events": _ROOM, "max_queue_bytes": _ROOM} | settings
    return Batcher(api_key="hh_bench", base_url=url, **roomy)  # type: ignore[arg-type]  # numbers, all of them


def _making() -> float:
    """Return the CPU seconds of making an event and doing nothing with it."""
    began = time.thread_time()
    for number in range(5_000):
        make_event(number)
    return (time.thread_time() - began) / 5_000


def sessions_alive(url: str, sessions: int, events: int) -> Crowd:
    """Hold one event in each session but one, for ever, and send events through the one left."""
    return asyncio.run(_sessions_alive(url, sessions, events))


async def _sessions_alive(url: str, sessions: int, events: int) -> Crowd:
    batcher = await _batcher(url, flush_interval=_FOR_EVER).start()
    *others, ours = [batcher.session(number=number) for number in range(sessions)]
    for number, other in enumerate(others):
        batcher.push(make_event(number), session=other)

    async def send(count: int) -> None:
        until = batcher.statistics().delivered + count
        for number in range(count):
            await batcher.put(make_event(number), session=ours)
        while batcher.statistics().delivered < until:  # noqa: ASYNC110 - a flush would send the others too
            await asyncio.sleep(0.001)

    await send(_WARM_UP)
    sink.count(url)
    with Meter() as meter:
        await send(events)
    counts = sink.count(url)
    net = (meter.cpu / events - _making()) / encode_seconds()
    await batcher.aclose(timeout=0.0)
    return Crowd(net, events, counts)


def sessions_in_turn(url: str, sessions: int, events: int) -> Crowd:
    """Send events through all sessions in turn: each body belongs to one session, so there are many."""
    return asyncio.run(_sessions_in_turn(url, sessions, events))


async def _sessions_in_turn(url: str, sessions: int, events: int) -> Crowd:
    batcher = await _batcher(url, flush_interval=_FOR_EVER).start()
    every = [batcher.session(number=number) for number in range(sessions)]
    batcher.push(make_event(0))
    await batcher.flush()
    sink.count(url)
    with Meter() as meter:
        for number in range(events):
            await batcher.put(make_event(number), session=every[number % sessions])
        await batcher.flush()
    counts = sink.count(url)
    net = (meter.cpu / events - _making()) / encode_seconds()
    await batcher.aclose()
    return Crowd(net, events, counts)


def held(url: str, depth: int, events: int) -> Crowd:
    """Push events on top of a queue so deep, and send all of them: a push and a delivery, per event."""
    return asyncio.run(_held(url, depth, events))


async def _held(url: str, depth: int, events: int) -> Crowd:
    async with _batcher(url) as other:  # what is imported and made once
        other.push(make_event(0))
        await other.flush()
    sink.count(url)
    batcher = _batcher(url)  # not started: what is pushed is held
    for number in range(depth):
        batcher.push(make_event(number))
    with Meter() as pushing:
        for number in range(depth, depth + events):
            batcher.push(make_event(number))
    with Meter() as sending:
        await batcher.start()
        await batcher.flush()
    counts = sink.count(url)
    cpu = pushing.cpu / events + sending.cpu / (depth + events)
    net = (cpu - _making()) / encode_seconds()
    await batcher.aclose()
    return Crowd(net, depth + events, counts)


def threads(url: str, count: int, events: int) -> Crowd:
    """Push from so many threads at once, none of which is the loop's."""
    return asyncio.run(_threads(url, count, events))


async def _threads(url: str, count: int, events: int) -> Crowd:
    batcher = await _batcher(url).start()
    batcher.push(make_event(0))
    await batcher.flush()
    sink.count(url)

    def push(first: int) -> None:
        for number in range(first, events, count):
            batcher.push(make_event(number))

    producers = [threading.Thread(target=push, args=(first,)) for first in range(count)]
    with Meter() as meter:
        for producer in producers:
            producer.start()
        for producer in producers:
            await asyncio.to_thread(producer.join)
        await batcher.flush()
    counts = sink.count(url)
    net = (meter.cpu / events - _making()) / encode_seconds()
    await batcher.aclose()
    return Crowd(net, events, counts)
