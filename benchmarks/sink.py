"""A server that is never the limit, in a process of its own on another core.

It speaks just enough HTTP/1.1 to take `POST` bodies, and decodes them to count the events that really
came and how many came twice. `GET /count` tells, and starts anew.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec


class _Event(msgspec.Struct):
    event_id: str | None = None
    metadata: dict[str, Any] | None = None


class _Body(msgspec.Struct):
    model_events: list[_Event]


class Counts(msgspec.Struct):
    """What came since the last count."""

    requests: int
    events: int
    distinct: int


class _Sink(asyncio.Protocol):
    decoder = msgspec.json.Decoder(_Body)
    numbers: set[Any] = set()  # noqa: RUF012 - one sink a process: all connections share it
    events = 0
    requests = 0

    def __init__(self) -> None:
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end])
            lower = head.lower()
            at = lower.find(b"content-length:")
            size = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + size:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + size])
            del self._buffer[: end + 4 + size]
            answer = self._count() if head.startswith(b"GET") else self._take(body)
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (len(answer), answer)
            )

    @classmethod
    def _take(cls, body: bytes) -> bytes:
        cls.requests += 1
        events = cls.decoder.decode(body).model_events
        cls.events += len(events)
        cls.numbers.update(event.metadata["number"] for event in events if event.metadata)
        ids = [event.event_id or "" for event in events]
        return msgspec.json.encode({"event_ids": ids, "success": True})

    @classmethod
    def _count(cls) -> bytes:
        counts = Counts(requests=cls.requests, events=cls.events, distinct=len(cls.numbers))
        cls.requests = cls.events = 0
        cls.numbers.clear()
        return msgspec.json.encode(counts)


def pin(core: int) -> None:
    """Stay on one core, where the system allows it and has that many."""
    if hasattr(os, "sched_setaffinity") and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


@contextmanager
def running() -> Iterator[str]:
    """Run a sink in a process of its own; gives its URL."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.sink"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.communicate()


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    pin(1)
    asyncio.run(_serve())
