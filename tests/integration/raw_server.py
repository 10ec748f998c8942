"""A server of raw bytes: every request meets the fault it was told, and after them a good answer."""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

DATA = Path(__file__).parent.parent / "data"


class Connection:
    """One connection, as a fault sees it."""

    def __init__(
        self, server: "RawServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        """Read the head of a request, and note it."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.server.heads.append(head)
        return head

    async def body(self, head: bytes) -> list[str]:
        """Read the body, take what is in it, and return the ids."""
        body = await self.reader.readexactly(content_length(head))
        self.server.bodies.append(body)
        ids = [event["event_id"] for event in json.loads(body).get("model_events", [])]
        self.server.taken += ids
        return ids

    async def request(self) -> list[str]:
        """Read a whole request, take what is in it, and return the ids."""
        return await self.body(await self.head())

    async def answer(self, status: int, body: bytes = b"", *headers: str) -> None:
        """Send a whole answer."""
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
        await self.write("\r\n".join(lines).encode() + body)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Send a RST and nothing else."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def content_length(head: bytes) -> int:
    """Return the length of the body that follows a head."""
    lines = head.lower().split(b"\r\n")
    return int(next(line for line in lines if line.startswith(b"content-length:")).split(b":")[1])


Fault: TypeAlias = Callable[[Connection], Awaitable[bool]]
"""Deals with one request; returns whether the connection may carry another."""


async def good(connection: Connection) -> bool:
    """Answer as documented."""
    ids = await connection.request()
    await connection.answer(200, json.dumps({"success": True, "event_ids": ids}).encode())
    return True


class RawServer:
    """Listens on a loopback port of its own. With `tls`, the faults are the ones to begin it."""

    def __init__(self, *faults: Fault, tls: bool = False, sock: socket.socket | None = None):
        self.faults = deque(faults)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.taken: list[str] = []
        """Ids of the events whose request came whole: such a server may have stored them."""
        self.connections = 0
        self.tls = tls
        self._sock = sock
        self._tasks: dict[asyncio.Task[None], Connection] = {}

    def next_fault(self) -> Fault:
        """Return what the next request of some connection is to meet."""
        return self.faults.popleft() if self.faults else good

    async def __aenter__(self) -> Self:
        sock = self._sock or bound_socket()
        self.port: int = sock.getsockname()[1]
        await self._listen(sock)
        return self

    async def _listen(self, sock: socket.socket) -> None:
        self._server = await asyncio.start_server(self._accept, sock=sock)

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = Connection(self, reader, writer)
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks[task] = connection
        task.add_done_callback(self._tasks.pop)

    async def _serve(self, connection: Connection) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while await self.next_fault()(connection):
                    pass
        finally:
            connection.writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await connection.writer.wait_closed()


def bound_socket(port: int = 0) -> socket.socket:
    """Return a socket with a loopback port, any free one by default, that refuses connections until it
    listens. Two may share a port, as long as one of them does not listen.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def server_tls() -> ssl.SSLContext:
    """Return the context of a server whose certificate nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / "self_signed_localhost.pem")
    return context
