"""A server that is never the limit, in a process of its own on another core.

It takes the `POST` bodies of every contestant and counts the events that really came, and how many came
twice. HoneyHive's bodies are decoded; of all others it looks for the mark that every event carries, once
the compression is off: whatever the format, strings travel as they are. `GET /count` tells, and starts
anew, `GET /progress` does not. `python -m benchmarks.sink 0.05` takes 50 ms for each request.
"""

import asyncio
import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from benchmarks.alone import SERVER_CORE, pin
from benchmarks.data import DIGITS, MARK
from benchmarks.http import Cutter, Message, plain
from benchmarks.replies import reply

_MARK = MARK.encode()


class _Metadata(msgspec.Struct):
    number: str = ""


class _Event(msgspec.Struct):
    event_id: str | None = None
    metadata: _Metadata | None = None


class _Body(msgspec.Struct):
    model_events: list[_Event]


class Counts(msgspec.Struct):
    """What came since the last count."""

    requests: int
    bytes: int
    events: int
    distinct: int
    first_byte_at: float
    """When the first byte of the first request came, on the clock that all processes share."""
    last_at: float
    """When the last event came."""
    refused: list[str]
    """First lines of requests that could not be read."""

    @property
    def twice(self) -> int:
        return self.events - self.distinct


class _Ledger:
    """All connections share it."""

    decoder = msgspec.json.Decoder(_Body)

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.numbers: set[Any] = set()
        self.events = self.requests = self.bytes = 0
        self.first_byte_at = self.last_at = 0.0
        self.refused: list[str] = []

    def take(self, message: Message) -> bytes:
        """Count what is in a body and return the answer's."""
        self.requests += 1
        self.bytes += len(message.body)
        body = plain(message)
        if message.first_line.startswith(b"POST /events/model/batch"):
            events = self.decoder.decode(body).model_events
            numbers: list[Any] = [
                event.metadata.number.encode()[-DIGITS:] for event in events if event.metadata
            ]
            answer = msgspec.json.encode(
                {"event_ids": [event.event_id or "" for event in events], "success": True}
            )
        else:
            numbers = [piece[:DIGITS] for piece in body.split(_MARK)[1:]]
            answer = reply(message.first_line, len(numbers))
        if numbers:
            self.events += len(numbers)
            self.numbers.update(numbers)
            self.last_at = time.monotonic()
        return answer

    def count(self) -> bytes:
        """Return what came, and begin anew."""
        counts = Counts(
            requests=self.requests,
            bytes=self.bytes,
            events=self.events,
            distinct=len(self.numbers),
            first_byte_at=self.first_byte_at,
            last_at=self.last_at,
            refused=self.refused,
        )
        self.clear()
        return msgspec.json.encode(counts)


class _Sink(asyncio.Protocol):
    ledger = _Ledger()
    delay = 0.0

    def __init__(self) -> None:
        self._cutter = Cutter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.ledger.first_byte_at and not data.startswith(b"GET "):
            self.ledger.first_byte_at = time.monotonic()
        for message in self._cutter.feed(data):
            status, delay = b"200 OK", 0.0
            if message.first_line.startswith(b"GET /count"):
                answer = self.ledger.count()
            elif message.first_line.startswith(b"GET /progress"):
                answer = msgspec.json.encode(self.ledger.events)
            elif message.first_line.startswith(b"GET "):
                answer = reply(message.first_line, 0)
            else:
                try:
                    answer, delay = self.ledger.take(message), self.delay
                except Exception as error:  # an unreadable body is a finding, not the end of the sink
                    answer, status = b"{}", b"400 Bad Request"
                    self.ledger.refused.append(f"{message.first_line.decode()}: {error!r}")
            asyncio.get_running_loop().call_later(delay, self._answer, status, answer) if delay else (
                self._answer(status, answer)
            )

    def _answer(self, status: bytes, answer: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(answer), answer)
        )


def count(url: str) -> Counts:
    """Ask a sink what came since the last time."""
    return msgspec.json.decode(_get(url, "/count"), type=Counts)


def progress(url: str) -> int:
    """Ask a sink how many events came since the last count, which goes on."""
    return msgspec.json.decode(_get(url, "/progress"), type=int)


def _get(url: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


@contextmanager
def running(delay: float = 0.0) -> Iterator[str]:
    """Run a sink in a process of its own; gives its URL."""
    command = [sys.executable, "-m", "benchmarks.sink", str(delay)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.communicate()


async def _serve(delay: float) -> None:
    _Sink.delay = delay
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    pin(SERVER_CORE)
    asyncio.run(_serve(float(sys.argv[1])))
