"""Servers that are slow, or send what never ends, while many requests are under way.

They run in a process of their own: `python -m tests.reliability.slow <seconds>`, where the seconds are those
between two bytes of one that trickles.
"""

import asyncio
import contextlib
import gc
import gzip
import itertools
import json
import socket
import statistics
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from msgspec import Struct

from honeyhive_batcher import Batcher
from tests.integration.raw_server import Connection, Fault, RawServer, bound_socket
from tests.reliability.apart import Apart, apart, converse
from tests.reliability.proxy import endless_headers, endless_interim_answers, oversized
from tests.reliability.rows import Row, Size
from tests.reliability.watched import Exchange, Watched, direct_network

MEBIBYTE = 2**20
BOMB = 200 * MEBIBYTE


# The servers.


async def said(connection: Connection, pieces: Iterable[bytes], *, pause: float = 0.0) -> bool:
    """Answer a request with these pieces, and close."""
    await connection.request()
    for piece in pieces:
        await connection.write(piece)
        if pause:
            await asyncio.sleep(pause)
    return False


def packed_bomb() -> bytes:
    """Return an answer that gzip unpacks to very much."""
    packer = gzip.compress(b" " * MEBIBYTE)  # members follow one another: no need to have it all at once
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    packed = packer * (BOMB // MEBIBYTE)
    return head % len(packed) + packed


def servers(tick: float) -> dict[str, Fault]:
    """Return how the servers answer, by name; one that trickles says something every `tick` seconds."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n"
    packed = packed_bomb()

    async def late(connection: Connection) -> bool:
        ids = await connection.request()
        await asyncio.sleep(10 * tick)
        await connection.answer(200, json.dumps({"success": True, "event_ids": ids}).encode())
        return True

    async def never_read(_: Connection) -> bool:
        await asyncio.Event().wait()
        return False

    async def a_byte_at_a_time(connection: Connection) -> bool:
        return await said(connection, (bytes([byte]) for byte in head * 100), pause=tick)

    async def a_header_at_a_time(connection: Connection) -> bool:
        lines = itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"X: y\r\n"))
        return await said(connection, lines, pause=tick)

    async def a_body_byte_at_a_time(connection: Connection) -> bool:
        return await said(connection, [head + b"\r\n", *[b"x"] * 1000], pause=tick)

    async def headers_for_ever(connection: Connection) -> bool:
        return await said(connection, endless_headers())

    async def announcements_for_ever(connection: Connection) -> bool:
        return await said(connection, endless_interim_answers())

    async def plain_bomb(connection: Connection) -> bool:
        return await said(connection, oversized(BOMB)())

    async def gzip_bomb(connection: Connection) -> bool:
        return await said(connection, [packed])

    return {
        fault.__name__.replace("_", " "): fault
        for fault in (
            late,
            never_read,
            a_byte_at_a_time,
            a_header_at_a_time,
            a_body_byte_at_a_time,
            headers_for_ever,
            announcements_for_ever,
            plain_bomb,
            gzip_bomb,
        )
    }


class OneFault(RawServer):
    """Deals with every request in the same way, and remembers none."""

    def __init__(self, fault: Fault) -> None:
        sock = bound_socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # not to read for those that do not
        super().__init__(sock=sock)
        self._fault = fault

    def next_fault(self) -> Fault:
        for memory in (self.heads, self.bodies, self.taken):
            memory.clear()
        return self._fault


async def serve(tick: float) -> None:
    """Run the servers until the standard input ends."""
    async with contextlib.AsyncExitStack() as stack:
        ports = {
            name: (await stack.enter_async_context(OneFault(fault))).port
            for name, fault in servers(tick).items()
        }

        async def answer(word: str) -> object:
            return word

        await converse(ports, answer)


# The cases.


class Case(Struct, frozen=True, kw_only=True):
    """One server, and what its events come to."""

    name: str
    delivered: bool = False
    """Whether the answer says enough for a success."""
    times_out: bool = False
    content: int = 100
    """Bytes in each event."""
    is_endless: bool = False
    """Whether its requests soon come to their end, however long the answer is."""
    lag: float = 0.005
    """Seconds by which the loop may be late, beyond an idle one."""


CASES = [
    Case(name="late", delivered=True),
    Case(name="never read", times_out=True, content=3 * MEBIBYTE),
    Case(name="a byte at a time", times_out=True),
    Case(name="a header at a time", times_out=True),
    Case(name="a body byte at a time", times_out=True, delivered=True),
    # Hundreds of messages in what one connection brings at once, and each has to be parsed: milliseconds for
    # each of four connections, until the time-out. Afterwards one at a time asks whether it is well again.
    Case(name="announcements for ever", times_out=True, lag=0.025),
    Case(name="headers for ever", is_endless=True),
    Case(name="plain bomb", delivered=True, is_endless=True),
    Case(name="gzip bomb", delivered=True, is_endless=True),
]
BOMBS = ("plain bomb", "gzip bomb", "headers for ever")


class Measured(Struct, frozen=True, kw_only=True):
    """What came of one case."""

    most_under_way: int
    seconds: list[float]
    """Of each request that was not cancelled."""
    lag: float
    """Seconds by which the loop was late."""
    idle_lag: float
    """The same just before, when there was nothing to do."""
    wrong: int
    """Events with another fate than theirs."""


class Scale(Struct, frozen=True, kw_only=True):
    """How large it is."""

    tick: float
    timeout: float
    at_once: int
    idle: float
    """Seconds for which the idle loop is measured."""
    endless: int
    """Endless answers, in as many as may be under way at once."""


SCALES = {
    Size.QUICK: Scale(tick=0.02, timeout=0.3, at_once=8, idle=0.0, endless=3),
    Size.FULL: Scale(tick=1.0, timeout=5.0, at_once=16, idle=3.0, endless=40),
}


@contextlib.asynccontextmanager
async def sending(
    port: int, scale: Scale, exchanges: list[Exchange], *, is_late: bool = False
) -> AsyncIterator[tuple[Batcher, Watched]]:
    """Start a batcher with one event in each request, which is sent once."""
    watched = Watched(exchanges.append)
    batcher = Batcher(
        api_key="hh_test",
        base_url=f"http://127.0.0.1:{port}",
        max_in_flight=scale.at_once,
        max_batch_events=1,
        flush_interval=0,
        # Whoever is only late is waited for.
        request_timeout=30 if is_late else scale.timeout,
        backoff_base=0.01,
        backoff_max=0.1,
        on_ambiguous="drop",
        _seams=watched.seams(),
    )
    async with batcher:
        yield batcher, watched


def event(number: int, content: str) -> dict[str, Any]:
    """Return one event."""
    return {"model_name": "gpt-4o", "event_id": f"event-{number}", "content": content}


async def measure(case: Case, port: int, scale: Scale) -> Measured:
    """Push more than may be under way, and see how it fares until time-outs have come twice."""
    exchanges: list[Exchange] = []
    async with sending(port, scale, exchanges, is_late=not case.times_out) as (batcher, watched):
        with late_turns() as idle:
            await asyncio.sleep(scale.idle)
        content = "x" * case.content
        # Of the largest, no more fit into the queue.
        many = scale.endless if case.is_endless else 1 if case.content > MEBIBYTE else 3
        events = many * scale.at_once
        for number in range(events):
            assert batcher.push(event(number, content))
        await asyncio.sleep(0)
        with late_turns() as late:
            await batcher.flush(timeout=2.2 * scale.timeout if case.times_out else 120)
        await batcher.aclose(timeout=0)
    now = batcher.statistics()
    replies = len(exchanges)
    unknown = watched.cancelled + (0 if case.delivered else replies)
    unasked = events - replies - watched.cancelled
    dropped = sum(now.dropped.values())
    differences = (
        now.delivered - (replies if case.delivered else 0),
        now.delivered + now.unconfirmed + dropped - events,
        # A request that is just about to be sent when the batcher is closed is one nobody knows about, too.
        max(unknown - now.unconfirmed, 0),
        # Only those that time out are left for the closing.
        0 if case.times_out else unasked + watched.cancelled,
        now.held,
    )
    return Measured(
        most_under_way=watched.most_under_way,
        seconds=[exchange.seconds for exchange in exchanges],
        lag=lag(late),
        idle_lag=lag(idle),
        wrong=sum(map(abs, differences)),
    )


@contextlib.contextmanager
def late_turns() -> Iterator[list[float]]:
    """Yield a list that fills with the seconds by which turns of the loop come late."""
    late: list[float] = []

    async def probe() -> None:
        while True:
            began_at = time.perf_counter()
            await asyncio.sleep(_PROBE)
            late.append(time.perf_counter() - began_at - _PROBE)

    task = asyncio.get_running_loop().create_task(probe())
    try:
        yield late
    finally:
        task.cancel()


_PROBE = 0.002


def lag(late: list[float]) -> float:
    """Return by how much a loop was late at the 99th percentile: the median of that of each few seconds, for
    what other programs do to this one comes and goes.
    """
    parts = [sorted(late[start : start + 1000]) for start in range(0, len(late), 1000)]
    return statistics.median([part[int(0.99 * (len(part) - 1))] for part in parts] or [0.0])


async def memory(port: int, scale: Scale, *, at_once: int) -> tuple[int, int]:
    """Return the most bytes that so many answers at once take, and the most that is kept of one."""
    exchanges: list[Exchange] = []
    kept = 0
    async with sending(port, scale, exchanges) as (batcher, watched):
        for is_measured in (False, True):  # what is taken only once, by the first of them, is not counted
            for number in range(at_once):
                assert batcher.push(event(number, ""))
            if is_measured:
                gc.collect()
                tracemalloc.start()
            await batcher.flush(timeout=60)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        kept = watched.max_reply_bytes
    assert len(exchanges) == 2 * at_once
    return peak, kept


# The bars.


def rows(size: Size) -> Iterator[Row]:
    """Meet every one of the servers."""
    scale = SCALES[size]
    with direct_network(), apart("tests.reliability.slow", str(scale.tick)) as other:
        yield from asyncio.run(all_rows(other, scale, is_timed=size is Size.FULL))


async def all_rows(other: Apart, scale: Scale, *, is_timed: bool) -> list[Row]:
    """Return all rows, those about time only if wanted."""
    ports: dict[str, int] = other.greeting
    measured = {case.name: await measure(case, ports[case.name], scale) for case in CASES}
    found = list(logic_rows(measured, scale))
    if is_timed:
        found += time_rows(measured, scale)
    for name in BOMBS:
        found += memory_rows(
            name,
            *await memory(ports[name], scale, at_once=1),
            *await memory(ports[name], scale, at_once=scale.at_once),
            at_once=scale.at_once,
        )
    return found


def logic_rows(measured: dict[str, Measured], scale: Scale) -> Iterator[Row]:
    most = max(measured, key=lambda name: measured[name].most_under_way)
    yield Row(
        bar=14,
        what=f"most requests in flight, {len(measured)} slow or endless servers",
        figure=f"{measured[most].most_under_way} ({most})",
        bound=f"1 to {scale.at_once}",
        holds=1 <= measured[most].most_under_way <= scale.at_once,
    )
    wrong = {name: case.wrong for name, case in measured.items() if case.wrong}
    silent = [name for name, case in measured.items() if not case.seconds]
    yield Row(
        bar=14,
        what="events with another fate than theirs, and servers of which no request came back",
        figure=f"{wrong or 0}, {silent or 0}",
        bound="0, 0",
        holds=not wrong and not silent,
    )


def time_rows(measured: dict[str, Measured], scale: Scale) -> Iterator[Row]:
    limited = [case.name for case in CASES if case.times_out]
    seconds = [seconds for name in limited for seconds in measured[name].seconds]
    yield Row(
        bar=14,
        what=f"{len(seconds)} requests that ran into a time-out of {scale.timeout:g} s",
        figure=f"{min(seconds):.3f} to {max(seconds):.3f} s",
        bound=f"{scale.timeout:g} to {1.1 * scale.timeout:g} s",
        holds=scale.timeout <= min(seconds) and max(seconds) <= 1.1 * scale.timeout,
    )
    for case in CASES:
        came = measured[case.name]
        yield Row(
            bar=14,
            what=f"loop lag p99, {case.name}",
            figure=f"{came.lag * 1000:.1f} ms, idle {came.idle_lag * 1000:.1f} ms",
            bound=f"idle + {case.lag * 1000:g} ms",
            holds=came.lag <= came.idle_lag + case.lag,
        )


def memory_rows(
    name: str, one: int, kept: int, many: int, kept_of_each: int, *, at_once: int
) -> Iterator[Row]:
    bomb = "" if name == "headers for ever" else f" of {BOMB // MEBIBYTE} MiB"
    yield Row(
        bar=14,
        what=f"memory that one {name}{bomb} takes",
        figure=f"{one / MEBIBYTE:.2f} MiB",
        bound="5 MiB",
        holds=one <= 5 * MEBIBYTE,
    )
    bound = 5 * MEBIBYTE + (at_once - 1) * 2 * kept_of_each
    yield Row(
        bar=14,
        what=f"the same of {at_once} at once, of each of which {kept_of_each // 1024} KiB are read",
        figure=f"{many / MEBIBYTE:.2f} MiB",
        bound=f"{bound / MEBIBYTE:.1f} MiB: 5 MiB, and twice what is read of each other",
        holds=many <= bound and kept == kept_of_each,
    )


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
