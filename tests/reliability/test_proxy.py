"""The fault proxy does what its toxics say, as a client of plain streams sees it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.integration.raw_server import Fault, RawServer, good
from tests.reliability.proxy import (
    UNHARMED,
    Ending,
    Pace,
    Proxy,
    Stop,
    Toxic,
    endless_headers,
    garbage,
    oversized,
)

pytestmark = pytest.mark.anyio

BODY = json.dumps({"model_events": [{"event_id": "a", "content": "x" * 1000}]}).encode()
REQUEST = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
ANSWER = b'{"success": true, "event_ids": ["a"]}'
HEAD = b"HTTP/1.1 200 Whatever\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)


class Client:
    """One connection to a proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self) -> None:
        self.writer.write(REQUEST)
        await self.writer.drain()

    async def exchange(self) -> bytes:
        """Send a request and return what comes until the connection is closed."""
        await self.send()
        return await self.reader.read()

    async def answer(self) -> bytes:
        """Return the body of a whole answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length:")[1].split()[0])
        return await self.reader.readexactly(size)


@contextlib.asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()  # closing would wait for a server that reads nothing
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def standing(*script: Fault, **options: Any) -> AsyncIterator[tuple[RawServer, Proxy, Client]]:
    """Start a server, a proxy before it, and a client of it."""
    async with (
        asyncio.timeout(10),
        RawServer() as server,
        Proxy(server.port, *script, **options) as proxy,
        connected(proxy) as client,
    ):
        yield server, proxy, client


async def test_what_is_unharmed_goes_through_and_the_connection_stays() -> None:
    async with standing() as (server, proxy, client):
        for _ in range(3):
            await client.send()
            assert await client.answer() == ANSWER
        assert server.bodies == proxy.bodies == [BODY] * 3
        assert proxy.connections == 1
        assert proxy.met == {UNHARMED: 3}


@pytest.mark.parametrize(
    ("stop", "has"),
    [(Stop.ACCEPT, False), (Stop.HEAD, False), (Stop.MIDWAY, False), (Stop.BODY, True)],
)
async def test_a_reset_before_the_answer_leaves_the_server_with_what_had_come(stop: Stop, has: bool) -> None:
    async with standing(Toxic(stop=stop)) as (server, proxy, client):
        with pytest.raises(ConnectionError):  # a FIN would raise nothing
            await client.exchange()
        assert server.taken == (["a"] if has else [])
        assert len(proxy.bodies) == has
        assert sum(proxy.met.values()) == 1


@pytest.mark.parametrize(
    ("stop", "seen"),
    [
        (Stop.STATUS, b"HTTP/1.1 20"),
        (Stop.ANSWER_HEAD, HEAD[:22]),
        (Stop.ANSWER_BODY, HEAD + b'{"success": true, '),
    ],
)
async def test_an_answer_is_cut_where_it_was_told(stop: Stop, seen: bytes) -> None:
    async with standing(Toxic(stop=stop, ending=Ending.CLOSE)) as (server, _, client):
        await client.send()
        assert await client.reader.read() == seen
        assert server.taken == ["a"]


async def test_a_half_closed_connection_still_takes_what_is_sent() -> None:
    async with standing(Toxic(stop=Stop.HEAD, ending=Ending.HALF_CLOSE)) as (_, _, client):
        await client.send()
        assert await client.reader.read() == b""
        for _ in range(100):  # a closed one would answer with a reset
            client.writer.write(b"x" * 65_536)
            await client.writer.drain()


@pytest.mark.parametrize(("ending", "takes"), [(Ending.BLACK_HOLE, True), (Ending.UNREAD, False)])
async def test_a_hung_connection_says_nothing(ending: Ending, takes: bool) -> None:
    async with standing(Toxic(stop=Stop.BODY, ending=ending)) as (server, _, client):
        await client.send()
        while not server.taken:  # noqa: ASYNC110 - it comes over a socket
            await asyncio.sleep(0.001)
        sent = asyncio.create_task(send_much(client.writer))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.reader.read()
        assert sent.done() == takes
        sent.cancel()


async def send_much(writer: asyncio.StreamWriter) -> None:
    """Send more than kernels keep."""
    for _ in range(16):
        writer.write(b"x" * 2**20)
        await writer.drain()


@pytest.mark.parametrize(("after", "bytes_on"), [(10, 10), (None, len(BODY) // 2), (10**9, len(BODY))])
async def test_a_request_is_stopped_after_so_many_bytes(after: int | None, bytes_on: int) -> None:
    got = asyncio.Queue[bytes]()

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.put_nowait(await reader.read())
        writer.close()

    upstream = await asyncio.start_server(note, "127.0.0.1", 0)
    async with (
        upstream,
        Proxy(upstream.sockets[0].getsockname()[1], Toxic(stop=Stop.MIDWAY, after=after)) as proxy,
        connected(proxy) as client,
    ):
        await client.send()
        arrived = await asyncio.wait_for(got.get(), 10)
        assert arrived == REQUEST[: len(REQUEST) - len(BODY) + bytes_on]


async def test_what_is_said_instead_of_an_answer() -> None:
    script = [
        Toxic(instead=garbage, ending=Ending.CLOSE),
        Toxic(instead=oversized(200_000), ending=Ending.CLOSE),
        Toxic(instead=endless_headers),
    ]
    async with standing(*script) as (server, proxy, client):
        await client.send()
        assert await client.reader.read() == b"SSH-2.0-OpenSSH_9.6\r\n"
        async with connected(proxy) as second:
            await second.send()
            assert await second.answer() == b" " * 200_000
        async with connected(proxy) as third:
            await third.send()
            assert len(await third.reader.readexactly(3_000_000)) == 3_000_000
        assert server.taken == ["a"] * 3


def in_time(turns: list[float]) -> Callable[[float], Any]:
    async def sleep(seconds: float) -> None:
        turns.append(seconds)

    return sleep


PACE = Pace(latency=0.5, jitter=1.0, slice=1, pause=0.25)


@pytest.mark.parametrize(
    ("toxic", "size"), [(Toxic(request=PACE), len(BODY)), (Toxic(answer=PACE), len(HEAD + ANSWER))]
)
async def test_bytes_go_on_at_their_pace(toxic: Toxic, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    async with standing(toxic, seed=7) as (_, _, client):
        monkeypatch.setattr("tests.reliability.proxy.asyncio.sleep", in_time(slept))
        await client.send()
        assert await client.answer() == ANSWER
        assert 0.5 <= slept[0] < 1.5
        assert slept[1:] == [0.25] * size


async def test_equal_seeds_draw_equally_after_the_script() -> None:
    def drawn(seed: int) -> list[Fault]:
        proxy = Proxy(1, good, chance=lambda chance: Toxic(after=chance.randrange(10**9)), seed=seed)
        return [proxy.next_fault() for _ in range(10)]

    first = drawn(1)
    assert first[0] is good
    assert len(set(first)) == 10
    assert first == drawn(1)
    assert first[1:] != drawn(2)[1:]


async def test_down_refuses_and_up_listens_on_the_same_port() -> None:
    async with standing(Toxic(stop=Stop.HEAD, ending=Ending.BLACK_HOLE)) as (server, proxy, client):
        await client.send()
        while not proxy.met:  # noqa: ASYNC110 - it comes over a socket
            await asyncio.sleep(0.001)
        for _ in range(2):
            await proxy.down()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", proxy.port)
            await proxy.up()
            async with connected(proxy) as another:
                await another.send()
                assert await another.answer() == ANSWER
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
        assert server.taken == ["a"] * 2
