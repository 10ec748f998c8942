"""A FastAPI service in a process of its own that pushes one event per request, and requests for it.

The requests come at fixed times whether or not the last one was answered, from this process, which belongs
on the server's core. A late answer makes those behind it late as well, as it does for real.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import msgspec

from benchmarks import sink
from benchmarks.alone import PRODUCER_CORE, SERVER_CORE, pin
from benchmarks.data import make_event
from benchmarks.http import Cutter

_REQUEST = b"GET /chat HTTP/1.1\r\nHost: service\r\n\r\n"
_CONNECTIONS = 8


class Slices(msgspec.Struct):
    """What became of the requests to each service, slice by slice."""

    latencies: list[list[list[float]]]
    """Of each service, of each slice: seconds, in order of size."""
    given: int
    """Requests to each of them."""
    counts: sink.Counts


def requests(names: list[str], url: str, rate: int, slices: int, seconds: float) -> Slices:
    """Start a service for each name and send requests to one after the other, a slice at a time."""
    pin(SERVER_CORE)
    sink.count(url)
    found: list[list[list[float]]] = [[] for _ in names]
    given = 0
    with _services(names, url) as ports:
        for number in range(-1, slices):  # the first slice is a warm-up
            for port, latencies in zip(ports, found, strict=True):
                taken = asyncio.run(_slice(port, rate, seconds))
                given += len(taken)
                if number >= 0:
                    latencies.append(sorted(taken))
        time.sleep(2.0)  # longer than any contestant waits for more events
        for port in ports:
            asyncio.run(_get(port, b"GET /settle HTTP/1.1\r\nHost: service\r\n\r\n"))
        counts = sink.count(url)
    return Slices(found, given // len(names), counts)


@contextmanager
def _services(names: list[str], url: str) -> Iterator[list[int]]:
    processes = []
    try:
        for name in names:
            command = [sys.executable, "-m", "benchmarks.service", name, url]
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        ports = []
        for process in processes:
            assert process.stdout is not None
            ports.append(int(process.stdout.readline()))
        yield ports
    finally:
        for process in processes:
            process.kill()
            process.communicate()


class _Client(asyncio.Protocol):
    def __init__(self) -> None:
        self._cutter = Cutter()
        self._sent_at: list[float] = []
        self.latencies: list[float] = []
        self.answered = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes) -> None:
        self._sent_at.append(time.monotonic())
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        for message in self._cutter.feed(data):
            assert message.first_line.startswith(b"HTTP/1.1 200"), message
            self.latencies.append(time.monotonic() - self._sent_at.pop(0))
            if not self._sent_at:
                self.answered.set()

    async def close(self) -> None:
        if self._sent_at:
            self.answered.clear()
            await self.answered.wait()
        self._transport.close()


async def _get(port: int, request: bytes) -> None:
    _transport, client = await asyncio.get_running_loop().create_connection(_Client, "127.0.0.1", port)
    client.ask(request)
    await client.close()


async def _slice(port: int, rate: int, seconds: float) -> list[float]:
    loop = asyncio.get_running_loop()
    pairs = [await loop.create_connection(_Client, "127.0.0.1", port) for _ in range(_CONNECTIONS)]
    clients = [client for _transport, client in pairs]
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        clients[number % _CONNECTIONS].ask(_REQUEST)
    for client in clients:
        await client.close()
    return [latency for client in clients for latency in client.latencies]


def _serve(name: str, url: str) -> None:
    pin(PRODUCER_CORE)
    import uvicorn
    from fastapi import FastAPI

    from benchmarks.peers.contestant import Options, make

    contestant = make(name, Options(url=url))
    numbers = iter(range(10**8))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await contestant.start()
        yield
        await contestant.stop()

    app = FastAPI(lifespan=lifespan)

    @app.get("/chat")
    async def chat() -> dict[str, str]:
        event = make_event(next(numbers))
        contestant.push(event)
        return {"answer": event["response"]["content"]}

    @app.get("/settle")
    async def settle() -> dict[str, str]:
        await contestant.settle()
        return {}

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(self.servers[0].sockets[0].getsockname()[1], flush=True)
            os.dup2(2, 1)  # whatever a peer prints is no port

    Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False)).run()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
