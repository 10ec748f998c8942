"""A server in a process of its own that is as good or as bad as it is told, and may be told otherwise.

It speaks just enough HTTP/1.1 to take `POST` bodies, and remembers the ids of all events that came whole.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

import msgspec
from msgspec import Struct

Mood = Literal["take", "hang", "black hole", "unavailable", "trickle"]
"""`hang` reads and never answers; a `black hole` does not even read; `trickle` answers a byte at a time."""

ROOT = Path(__file__).parents[2]


class Counts(Struct):
    """What came so far."""

    requests: int
    events: int
    distinct: int


class Peer:
    """The other end of the pipes to such a server."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._says: IO[str] = process.stdin
        self._hears: IO[str] = process.stdout
        self.url = f"http://127.0.0.1:{self._hears.readline().strip()}"

    def become(self, mood: Mood) -> None:
        """Change its mood, for all connections, also for the requests that it has not answered."""
        assert self._ask(mood) == mood

    def count(self) -> Counts:
        return msgspec.json.decode(self._ask("count"), type=Counts)

    def _ask(self, words: str) -> str:
        self._says.write(words + "\n")
        self._says.flush()
        return self._hears.readline().strip()


@contextlib.contextmanager
def running(mood: Mood) -> Iterator[Peer]:
    """Run such a server."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.reliability.peer", mood],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield Peer(process)
    finally:
        process.terminate()
        process.communicate()


class _Event(Struct):
    event_id: str


class _Body(Struct):
    model_events: list[_Event]


_decoder = msgspec.json.Decoder(_Body)


class _Server:
    """What all connections share."""

    def __init__(self, mood: str) -> None:
        self.mood = mood
        self.connections: set[_Connection] = set()
        self.requests = 0
        self.events = 0
        self.ids: set[str] = set()

    def obey(self, words: str) -> str:
        if words == "count":
            counts = Counts(requests=self.requests, events=self.events, distinct=len(self.ids))
            return msgspec.json.encode(counts).decode()
        self.mood = words
        for connection in list(self.connections):
            connection.go_on()
        return words


class _Connection(asyncio.Protocol):
    def __init__(self, server: _Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._asked: list[list[str]] = []  # the ids in requests that have no answer yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(self)
        self.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            at = head.index(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0])
            if len(self._buffer) < end + 4 + size:
                return
            events = _decoder.decode(self._buffer[end + 4 : end + 4 + size]).model_events
            del self._buffer[: end + 4 + size]
            self._server.requests += 1
            self._server.events += len(events)
            if self._server.mood != "unavailable":  # which takes nothing
                self._server.ids.update(event.event_id for event in events)
            self._asked.append([event.event_id for event in events])
            self.go_on()

    def go_on(self) -> None:
        """Do what the mood is."""
        if self._transport.is_closing():
            return
        if self._server.mood == "black hole":
            self._transport.pause_reading()
            return
        self._transport.resume_reading()
        if self._server.mood == "hang":
            return
        for ids in self._asked:
            if self._server.mood == "trickle":
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                self._trickle()
            elif self._server.mood == "unavailable":
                self._transport.write(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n")
            else:
                answer = msgspec.json.encode({"success": True, "event_ids": ids})
                self._transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(answer), answer)
                )
        self._asked.clear()

    def _trickle(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b" ")
            asyncio.get_running_loop().call_later(0.1, self._trickle)


async def _serve(mood: str) -> None:
    loop = asyncio.get_running_loop()
    server = _Server(mood)
    listener = await loop.create_server(lambda: _Connection(server), "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    words = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    while line := await words.readline():
        print(server.obey(line.decode().strip()), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
