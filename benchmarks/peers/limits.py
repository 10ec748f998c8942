"""What nobody can go below: an encode for each event, and a request for each body.

`RawClient` and `AiohttpClient` count the events given and send a body that was encoded beforehand for every
hundred of them; so their bodies must be as many as the events of a run, and the warm-up takes some as well.
"""

import asyncio
from collections import deque

import msgspec

from benchmarks.data import Event, make_event
from benchmarks.floor import Floor
from benchmarks.http import Cutter
from benchmarks.peers.contestant import Options
from honeyhive_batcher.core.fragment import Fragment, ids_of, size_of

_BATCH = 100
_IN_FLIGHT = 4
_PATH = "/events/model/batch"


class EncodeOnly:
    """One encode of each event, thrown away."""

    def __init__(self, _options: Options) -> None:
        self._encoder = msgspec.json.Encoder()

    async def start(self) -> None:
        pass

    async def give(self, event: Event) -> None:
        self._encoder.encode(event)

    def push(self, event: Event) -> None:
        self._encoder.encode(event)

    async def settle(self) -> None:
        pass

    async def stop(self) -> None:
        pass


class _Prepared:
    """Bodies encoded beforehand, one to send for every hundred events given, at most four on their way."""

    def __init__(self, options: Options) -> None:
        assert options.queue is not None
        encode = msgspec.json.Encoder().encode
        self.url = options.url
        self._bodies = deque(
            encode({"model_events": [make_event(first + number) for number in range(_BATCH)]})
            for first in range(0, options.queue + _WARM_UP, _BATCH)
        )
        self._given = 0
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()

    async def give(self, event: Event) -> None:  # noqa: ARG002 - it was encoded beforehand
        self._given += 1
        if self._given % _BATCH == 0:
            await self._slots.acquire()
            task = asyncio.ensure_future(self._send(self._bodies.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    def push(self, event: Event) -> None:
        raise NotImplementedError  # a limit is only ever given events, which waits for a slot

    async def settle(self) -> None:
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _send(self, body: bytes) -> None:
        raise NotImplementedError  # each client has its own


_WARM_UP = 1_000


class AiohttpClient(_Prepared):
    """One session of aiohttp with its default settings."""

    async def start(self) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession(headers={"Content-Type": "application/json"})

    async def _send(self, body: bytes) -> None:
        async with self._session.post(self.url + _PATH, data=body) as answer:
            await answer.read()

    async def stop(self) -> None:
        await self._session.close()


class PromisesOnly:
    """What keeps the promises while nothing goes wrong, and nothing else: no retry, no session, no time
    window, no end of a program. Four bodies of a hundred at most are on their way.
    """

    def __init__(self, options: Options) -> None:
        self._url = options.url + _PATH
        self._floor = Floor(max_events=10_000, max_bytes=64 * 2**20)
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()
        self.delivered = 0
        self.push = self._floor.push

    async def start(self) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession(headers={"Content-Type": "application/json"})

    async def give(self, event: Event) -> None:
        while not self.push(event):  # noqa: ASYNC110 - hardly ever
            await asyncio.sleep(0)
        if len(self._floor.queue) >= _BATCH:
            await self._slots.acquire()
            self._begin(_BATCH)

    def _begin(self, count: int) -> None:
        with self._floor.lock:
            batch = [self._floor.queue.popleft() for _ in range(count)]
        task = asyncio.ensure_future(self._send(batch))
        self._tasks.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _send(self, batch: list[Fragment]) -> None:
        body = b'{"model_events":[%b]}' % b",".join([each.data for each in batch])
        async with self._session.post(self._url, data=body) as answer:
            reply = msgspec.json.decode(await answer.read())
        if set(reply["event_ids"]) != set(ids_of(batch)):
            raise ValueError("others are named than were sent")  # a program would ask what became of them
        with self._floor.lock:
            for each in batch:
                each.settled = True
            self._floor.held -= len(batch)
            self._floor.held_bytes -= size_of(batch)
            self.delivered += len(batch)

    async def settle(self) -> None:
        if self._floor.queue:
            await self._slots.acquire()
            self._begin(len(self._floor.queue))
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        await self._session.close()


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._cutter = Cutter()
        self.answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._cutter.feed(data) and self.answered is not None:
            self.answered.set_result(None)


class RawClient(_Prepared):
    """Four connections of plain `asyncio.Protocol`: a client that reads lengths and nothing else."""

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        host, _, port = self.url.removeprefix("http://").partition(":")
        pairs = [await loop.create_connection(_Connection, host, int(port)) for _ in range(_IN_FLIGHT)]
        self._idle = [connection for _transport, connection in pairs]

    async def _send(self, body: bytes) -> None:
        connection = self._idle.pop()
        connection.answered = asyncio.get_running_loop().create_future()
        head = b"POST %b HTTP/1.1\r\nHost: sink\r\nContent-Length: %d\r\n\r\n" % (_PATH.encode(), len(body))
        connection.transport.write(head + body)
        await connection.answered
        self._idle.append(connection)

    async def stop(self) -> None:
        for connection in self._idle:
            connection.transport.close()
