"""A fault proxy for real sockets: between a batcher and a server, every request meets its toxic.

A toxic is a fault as a `RawServer` knows them, so that a script may hold both. Time is the event loop's,
and chance is seeded: equal seeds give equal draws in an equal order of requests.
"""

import asyncio
import enum
import random
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, TypeAlias

from msgspec import Struct

from tests.integration.raw_server import Connection, Fault, RawServer, bound_socket, content_length


class Pace(Struct, frozen=True, kw_only=True):
    """How the bytes of one direction go on. Left out, they go on as they come."""

    latency: float = 0.0
    """Seconds before the first of them."""
    jitter: float = 0.0
    """Up to so many seconds more, evenly spread."""
    slice: int = 65_536
    """Most bytes that go on at once."""
    pause: float = 0.0
    """Seconds after each slice: `slice / pause` is the bandwidth."""


class Stop(enum.Enum):
    """How far a request comes."""

    ACCEPT = "as soon as the connection stands"
    HEAD = "after the headers"
    MIDWAY = "within the body"
    BODY = "after the whole body: the server has answered, and the answer is held back"
    STATUS = "within the status line of the answer"
    ANSWER_HEAD = "within the headers of the answer"
    ANSWER_BODY = "within the body of the answer"


class Ending(enum.Enum):
    """What the client sees of a connection whose request was stopped."""

    RESET = "a RST"
    CLOSE = "a FIN, and a RST for what it goes on sending"
    HALF_CLOSE = "a FIN, though what it sends is still read"
    BLACK_HOLE = "nothing, though what it sends is still read"
    UNREAD = "nothing, and nothing is read either"


Words: TypeAlias = Callable[[], Iterable[bytes]]
"""Returns what is said instead of an answer, piece by piece."""


def garbage() -> Iterable[bytes]:
    """Greet as quite another service."""
    yield b"SSH-2.0-OpenSSH_9.6\r\n"


def endless_headers() -> Iterable[bytes]:
    """Begin a good answer that never comes to its body."""
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-Header: %s\r\n" % (b"x" * 1000)


def endless_interim_answers() -> Iterable[bytes]:
    """Announce an answer again and again: each announcement is a whole message to the client."""
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n" * 400


def oversized(size: int) -> Words:
    """Return a good answer whose body has so many bytes."""

    def words() -> Iterable[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        for start in range(0, size, len(_BLANK)):
            yield _BLANK[: size - start]

    return words


_BLANK = b" " * 65_536


class Toxic(Struct, frozen=True, kw_only=True):
    """What befalls one request on its way to the server, and its answer on the way back.

    Left out, nothing does. The server is one that says Content-Length.
    """

    request: Pace = Pace()
    answer: Pace = Pace()
    stop: Stop | None = None
    """How far it comes; None for all the way."""
    ending: Ending = Ending.RESET
    """What the client sees when it is stopped, or when `instead` has been said."""
    after: int | None = None
    """Bytes of the body that are read before it is stopped within; None for half of them."""
    instead: Words | None = None
    """What is said instead of the answer that the server gave."""

    async def __call__(self, connection: Connection) -> bool:
        """Deal with one request; return whether the connection may carry another."""
        proxy = connection.server
        assert isinstance(proxy, Proxy)
        if self.stop is Stop.ACCEPT:
            proxy.met[self] += 1
            return await end(connection, self.ending)
        head = await connection.head()
        proxy.met[self] += 1
        if self.stop is Stop.HEAD:
            return await end(connection, self.ending)
        proxy.under_way += 1
        try:
            answer = await self._ask(connection, proxy, head)
        finally:
            proxy.under_way -= 1
        if answer is None or self.stop is Stop.BODY:
            return await end(connection, self.ending)
        await _wait(self.answer, proxy.random)
        if self.instead is not None:
            for words in self.instead():
                await _say(connection, words, self.answer)
            return await end(connection, self.ending)
        cut = self._cut(answer)
        await _say(connection, answer[:cut], self.answer)
        return True if cut is None else await end(connection, self.ending)

    async def _ask(self, connection: Connection, proxy: "Proxy", head: bytes) -> bytes | None:
        """Pass a request on and return the whole answer, or None if the request was stopped."""
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.upstream)
        try:
            await _wait(self.request, proxy.random)
            writer.write(head)
            size = content_length(head)
            after = size // 2 if self.after is None else min(self.after, size)
            body = await _pass_on(
                connection.reader, writer, after if self.stop is Stop.MIDWAY else size, self.request
            )
            if self.stop is Stop.MIDWAY:
                return None
            proxy.note(body)
            answer_head = await reader.readuntil(b"\r\n\r\n")
            return answer_head + await reader.readexactly(content_length(answer_head))
        finally:
            writer.close()

    def _cut(self, answer: bytes) -> int | None:
        """Return how many bytes of an answer go on; None for all of them."""
        head = answer.index(b"\r\n\r\n") + 4
        match self.stop:
            case Stop.STATUS:
                return len(b"HTTP/1.1 20")
            case Stop.ANSWER_HEAD:
                return head // 2
            case Stop.ANSWER_BODY:
                return (head + len(answer)) // 2
            case _:
                return None


async def _wait(pace: Pace, chance: random.Random) -> None:
    if pace.latency or pace.jitter:
        await asyncio.sleep(pace.latency + pace.jitter * chance.random())


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int, pace: Pace
) -> bytes:
    """Pass so many bytes on, and return them."""
    parts: list[bytes] = []
    while size:
        part = await reader.read(min(size, pace.slice))
        if not part:
            raise asyncio.IncompleteReadError(b"", size)
        parts.append(part)
        size -= len(part)
        writer.write(part)
        await writer.drain()
        if pace.pause:
            await asyncio.sleep(pace.pause)
    return b"".join(parts)


async def _say(connection: Connection, words: bytes, pace: Pace) -> None:
    for start in range(0, len(words), pace.slice):
        await connection.write(words[start : start + pace.slice])
        if pace.pause:
            await asyncio.sleep(pace.pause)


async def end(connection: Connection, ending: Ending) -> bool:
    """End a connection; return that it carries no other request."""
    match ending:
        case Ending.RESET:
            connection.reset()
        case Ending.UNREAD:
            await asyncio.Event().wait()
        case Ending.HALF_CLOSE | Ending.BLACK_HOLE:
            if ending is Ending.HALF_CLOSE:
                connection.writer.write_eof()
            while await connection.reader.read(65_536):
                pass
        case Ending.CLOSE:
            pass
    return False


UNHARMED = Toxic()

Chance: TypeAlias = Callable[[random.Random], Fault]
"""Draws what a request meets."""


class Proxy(RawServer):
    """Passes requests on to a server on a loopback port.

    Each meets the next fault of the script; after the script, what `chance` draws. A connection that may
    carry another request has drawn for it already.
    """

    def __init__(
        self,
        upstream: int,
        *script: Fault,
        chance: Chance = lambda _: UNHARMED,
        seed: int = 0,
        keeps_bodies: bool = True,
        tls: bool = False,
    ) -> None:
        super().__init__(*script, tls=tls)
        self.upstream = upstream
        self.chance = chance
        self.random = random.Random(seed)
        self.met: Counter[Fault] = Counter()
        """How many requests have met which toxic."""
        self.under_way = 0
        """Requests whose answer the server still owes."""
        self._keeps_bodies = keeps_bodies

    def next_fault(self) -> Fault:
        return self.faults.popleft() if self.faults else self.chance(self.random)

    def note(self, body: bytes) -> None:
        """Note that the server was sent a whole body."""
        if self._keeps_bodies:
            self.bodies.append(body)

    async def down(self) -> None:
        """Refuse connections, and reset those that stand."""
        self._server.close()
        for task, connection in list(self._tasks.items()):
            connection.reset()
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def up(self) -> None:
        """Listen again, on the same port."""
        await self._listen(bound_socket(self.port))

    async def __aenter__(self) -> Self:
        self._place = bound_socket()  # keeps the port while nothing listens
        self._sock = bound_socket(self._place.getsockname()[1])
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, value, trace)
        self._place.close()
