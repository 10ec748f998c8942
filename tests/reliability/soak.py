"""A long run over real sockets through everything that a network does, in little time.

The fault proxy and a local HoneyHive are in a process of their own: `python -m tests.reliability.soak <file>
<seconds> ...`, with the file of the store, and for how long the proxy is up and down in turn.
"""

import asyncio
import contextlib
import gc
import random
import sqlite3
import sys
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from honeyhive_batcher import Batcher, Statistics
from honeyhive_batcher.testing import collector
from tests.reliability.apart import Apart, apart, converse
from tests.reliability.proxy import UNHARMED, Ending, Pace, Proxy, Stop, Toxic, garbage
from tests.reliability.rows import Row, Size
from tests.reliability.watched import (
    Exchange,
    Watched,
    direct_network,
    is_ambiguous,
    open_files,
    resident,
    until,
)

MEBIBYTE = 2**20

# The network.

NEAR = Pace(latency=0.005, jitter=0.01)
FAR = Pace(latency=0.05, jitter=0.2)
SLICED = Pace(slice=256, pause=0.001)
NARROW = Pace(slice=1024, pause=0.01)
"""About 100 KB/s."""

TOXICS: dict[str, tuple[float, Toxic]] = {
    "none": (20, UNHARMED),
    "near": (50, Toxic(request=NEAR, answer=NEAR)),
    "far": (10, Toxic(request=FAR, answer=FAR)),
    "sliced": (5, Toxic(request=SLICED, answer=SLICED)),
    "narrow": (3, Toxic(request=NARROW, answer=NARROW)),
    # Until here everything arrives, late or not. Of the following nothing does.
    "reset on accept": (2, Toxic(stop=Stop.ACCEPT)),
    "closed on accept": (1, Toxic(stop=Stop.ACCEPT, ending=Ending.CLOSE)),
    "reset after headers": (2, Toxic(stop=Stop.HEAD)),
    "reset midway": (2, Toxic(stop=Stop.MIDWAY)),
    "half closed midway": (1, Toxic(stop=Stop.MIDWAY, ending=Ending.HALF_CLOSE)),
    "swallowed after 1000 bytes": (2, Toxic(stop=Stop.MIDWAY, after=1000, ending=Ending.BLACK_HOLE)),
    "accepted, then silent": (1, Toxic(stop=Stop.ACCEPT, ending=Ending.BLACK_HOLE)),
    # The server has it, and its answer says enough.
    "answer truncated": (1, Toxic(stop=Stop.ANSWER_BODY)),
    # The server has it, and the client cannot know.
    "reset after the body": (0.1, Toxic(stop=Stop.BODY)),
    "half a status line": (0.1, Toxic(stop=Stop.STATUS, ending=Ending.CLOSE)),
    "garbage": (0.1, Toxic(instead=garbage)),
    "answer swallowed": (0.1, Toxic(stop=Stop.BODY, ending=Ending.BLACK_HOLE)),
}


def draw(chance: random.Random) -> Toxic:
    """Draw what a request meets."""
    weights = [weight for weight, _ in TOXICS.values()]
    return chance.choices([toxic for _, toxic in TOXICS.values()], weights)[0]


async def serve(db: str, up: float, down: float) -> None:
    """Be the network and the server until the standard input ends."""
    async with collector(db=db) as hive, Proxy(port_of(hive.url), chance=draw, keeps_bodies=False) as proxy:

        async def ups_and_downs() -> None:
            while True:
                await asyncio.sleep(up)
                await proxy.down()
                await asyncio.sleep(down)
                await proxy.up()

        changing = asyncio.create_task(ups_and_downs())

        async def answer(word: str) -> object:
            assert word == "heal"
            changing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await changing
            proxy.chance = lambda _: UNHARMED
            # What the idle connections have drawn is gone with them; what is down comes up.
            await proxy.down()
            await proxy.up()
            return {name: proxy.met[toxic] for name, (_, toxic) in TOXICS.items()}

        await converse(proxy.port, answer)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


# The host.


class Scale(Struct, frozen=True, kw_only=True):
    """How long and how much."""

    seconds: float
    rate: int
    """Events in a second."""
    up: float
    """Seconds until the proxy refuses everything."""
    down: float
    """Seconds until it takes connections again."""
    batch: int
    """Events in a request."""
    is_long: bool
    """Whether shares and slopes mean something."""


SCALES = {
    Size.QUICK: Scale(seconds=3.0, rate=2000, up=1.2, down=0.4, batch=50, is_long=False),
    # At twice the rate 41,413 events waited at one time, and what waits would pass for a leak.
    Size.FULL: Scale(seconds=120.0, rate=1000, up=20.0, down=3.0, batch=100, is_long=True),
}


class Fates:
    """The fates that were claimed, a byte for each, so that counting them costs the same at every time."""

    def __init__(self, events: int) -> None:
        self.delivered = bytearray(events)
        self.others = bytearray(events)
        self.ambiguous = bytearray(events)
        """How many requests with it ended with nobody knowing."""

    def hooks(self) -> dict[str, Any]:
        """Return the settings by which a batcher makes its claims here."""
        return {
            "on_delivered": lambda event_ids: self._count(self.delivered, event_ids),
            "on_dropped": lambda event_ids, _: self._count(self.others, event_ids),
            "on_unconfirmed": lambda event_ids: self._count(self.others, event_ids),
        }

    def note(self, exchange: Exchange) -> None:
        """Note what became of one request."""
        if is_ambiguous(exchange.reply):
            events = msgspec.json.decode(exchange.body)["model_events"]
            self._count(self.ambiguous, [event["event_id"] for event in events])

    def _count(self, fates: bytearray, event_ids: Any) -> None:
        for event_id in event_ids:
            fates[number_of(event_id)] += 1


def id_of(number: int) -> str:
    return str(uuid.UUID(int=number))


def number_of(event_id: str) -> int:
    return uuid.UUID(event_id).int


class Reading(Struct, frozen=True, kw_only=True):
    """What the process holds at one instant."""

    files: int
    threads: int
    tasks: int
    memory: int
    """Bytes that are resident."""
    held: int
    """Events of the batcher without a fate."""


def read(batcher: Batcher) -> Reading:
    return Reading(
        files=open_files(),
        threads=threading.active_count(),
        tasks=len(asyncio.all_tasks()),
        memory=resident(),
        held=batcher.statistics().held,
    )


class Course(Struct, kw_only=True):
    """What came of one run."""

    numbers: Statistics
    fates: Fates
    before: Reading
    after: Reading
    readings: list[Reading]
    met: dict[str, int]
    most_under_way: int
    flushed: bool
    complaints: list[str]


async def run(other: Apart, scale: Scale) -> Course:
    """Push at the rate of the scale through the proxy, let it heal, and flush."""
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
    events = int(scale.seconds * scale.rate)
    fates = Fates(events)
    watched = Watched(fates.note)
    readings: list[Reading] = []
    batcher = Batcher(
        api_key="hh_test",
        base_url=f"http://127.0.0.1:{other.greeting}",
        request_timeout=2.0,
        flush_interval=0.2,
        max_batch_events=scale.batch,
        backoff_base=0.05,
        backoff_max=0.5,
        # What is wanted is that nothing is lost, so nothing may be given up.
        max_retries=1000,
        max_elapsed=3600,
        max_queue_events=events,
        max_queue_bytes=2**30,
        _seams=watched.seams(),
        **fates.hooks(),
    )
    await asyncio.to_thread(gc.collect)  # and with it, the thread that `Apart` will want
    before = read(batcher)
    async with batcher:
        await push(batcher, events, scale.rate, readings)
        met = await other.ask("heal")
        flushed = bool(await batcher.flush(timeout=120))
    gc.collect()
    with contextlib.suppress(TimeoutError):  # a socket is let go a few turns after it is closed
        await until(lambda: open_files() <= before.files, within=5)
    return Course(
        numbers=batcher.statistics(),
        fates=fates,
        before=before,
        after=read(batcher),
        readings=readings,
        met=met,
        most_under_way=watched.most_under_way,
        flushed=flushed,
        complaints=complaints,
    )


async def push(batcher: Batcher, events: int, rate: int, readings: list[Reading]) -> None:
    """Push events at an even rate, and read what the process holds, five times a second."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    pushed = 0
    while pushed < events:
        await asyncio.sleep(0.01)
        due = min(int((loop.time() - began_at) * rate), events)
        for number in range(pushed, due):
            batcher.push({"model_name": "gpt-4o", "event_id": id_of(number), "messages": [f"{number} " * 20]})
        pushed = due
        if (loop.time() - began_at) * 5 > len(readings):
            readings.append(read(batcher))


# What the server has.


class Stored(Struct, frozen=True, kw_only=True):
    """What the server's file says."""

    times: bytearray
    """How often each event is there."""
    unequal: int
    """Events that are there with several contents."""
    foreign: int
    """Events that nobody pushed."""


def stored(db: Path, events: int) -> Stored:
    """Read the server's file."""
    times = bytearray(events)
    unequal = foreign = 0
    with contextlib.closing(sqlite3.connect(db)) as connection:
        for event_id, count, contents in connection.execute(
            "SELECT event_id, count(*), count(DISTINCT event) FROM events GROUP BY event_id"
        ):
            number = number_of(event_id)
            unequal += contents > 1
            if number < events:
                times[number] = count
            else:
                foreign += 1
    return Stored(times=times, unequal=unequal, foreign=foreign)


# The bars.


def rows(size: Size) -> Iterator[Row]:
    """Run once, and compare what was offered, what the server has, and what the batcher claims."""
    scale = SCALES[size]
    with tempfile.TemporaryDirectory() as folder, direct_network():
        db = Path(folder) / "soak.db"
        with apart("tests.reliability.soak", str(db), str(scale.up), str(scale.down)) as other:
            course = asyncio.run(run(other, scale))
        has = stored(db, int(scale.seconds * scale.rate))
    yield from ledger_rows(course, has, scale)
    yield from resource_rows(course, scale)


def ledger_rows(course: Course, has: Stored, scale: Scale) -> Iterator[Row]:
    events = len(has.times)
    numbers, fates = course.numbers, course.fates
    said = f"{events} events at {scale.rate}/s"
    harmful = sum(count for name, count in course.met.items() if name not in {"none", "near", "far"})
    yield Row(
        bar=19,
        what=f"{said}: requests that met a harmful toxic, and kinds of toxics met",
        figure=f"{harmful}, {sum(map(bool, course.met.values()))} of {len(TOXICS)}",
        bound="some, and a dozen" if scale.is_long else "some",
        holds=harmful > 0 and (sum(map(bool, course.met.values())) >= 12 or not scale.is_long),
    )
    lost = has.times.count(0)
    yield Row(bar=19, what=f"{said}: lost", figure=str(lost), bound="0", holds=not lost and course.flushed)
    wrong = (
        sum(delivered != 1 for delivered in fates.delivered),
        sum(map(bool, fates.others)),
        abs(numbers.offered - events) + abs(numbers.delivered - events) + numbers.held,
    )
    yield Row(
        bar=19,
        what=f"{said}: not claimed as delivered once, claimed as anything else, and statistics that differ",
        figure=", ".join(map(str, wrong)),
        bound="0, 0, 0",
        holds=wrong == (0, 0, 0),
    )
    copies = sum(max(times - 1, 0) for times in has.times)
    unexplained = sum(
        times > 1 + ambiguous for times, ambiguous in zip(has.times, fates.ambiguous, strict=True)
    )
    yield Row(
        bar=19,
        what=f"{said}: stored again without a reply that told nothing, with another content, foreign",
        figure=f"{unexplained}, {has.unequal}, {has.foreign}",
        bound="0, 0, 0",
        holds=not (unexplained or has.unequal or has.foreign),
    )
    if scale.is_long:  # of few requests, one is more than such a share
        yield Row(
            bar=19,
            what=f"{said}: duplicates, all with equal ids",
            figure=f"{copies} ({copies / events:.2%})",
            bound="1 %",
            holds=copies <= 0.01 * events,
        )


def resource_rows(course: Course, scale: Scale) -> Iterator[Row]:
    before, after, readings = course.before, course.after, course.readings
    left = [getattr(after, name) - getattr(before, name) for name in ("files", "threads", "tasks")]
    yield Row(
        bar=19,
        what="file descriptors, threads and tasks left, and complaints of the event loop",
        figure=", ".join(map(str, [*left, len(course.complaints)])),
        bound="0, 0, 0, 0",
        holds=max(left) <= 0 and not course.complaints,
    )
    limit = 16
    most = Counter({name: max(getattr(r, name) for r in readings) for name in ("files", "threads", "tasks")})
    most.subtract({name: getattr(before, name) for name in most})
    yield Row(
        bar=19,
        what="most of them during the run, more than before it",
        figure=f"{most['files']}, {most['threads']}, {most['tasks']}, for {course.most_under_way} requests",
        # A descriptor and a task for each request, and some for the worker and for what is being closed.
        bound=f"{limit + 8}, 0, {limit + 8}, for {limit}",
        holds=most["files"] <= limit + 8
        and most["threads"] <= 0
        and most["tasks"] <= limit + 8
        and course.most_under_way <= limit,
    )
    if scale.is_long:
        third = len(readings) // 3
        # The least of them, for what is held while the proxy is down takes its room, and is wanted.
        early, late = (
            min(reading.memory for reading in part) for part in (readings[third:-third], readings[-third:])
        )
        yield Row(
            bar=19,
            what="least resident memory in the last third, more than in the second",
            figure=f"{(late - early) / MEBIBYTE:.2f} MiB of {late / MEBIBYTE:.0f} MiB",
            bound="1 MiB",
            holds=late - early <= MEBIBYTE,
        )
        backlog = max(reading.held for reading in readings)
        wanted = int(scale.rate * (2 * scale.down + 10))
        yield Row(
            bar=19,
            what="most events held",
            figure=str(backlog),
            bound=f"{wanted}: what comes in twice the time down, and 10 s",
            holds=backlog <= wanted,
        )


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
