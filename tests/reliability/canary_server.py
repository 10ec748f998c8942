"""Servers that fail in every way they can, and give back what they were told: the key and the content."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

from tests.integration.raw_server import Connection, Fault, RawServer, content_length, good

KEY = "hh_canarykey7f3a91"
"""The API key of everything here: it may be nowhere but in the header of a request."""
CONTENT = "canarycontent58c2e0"
"""In every event and session: it may be nowhere but in the body of a request."""

TLS = Path(__file__).parent.parent / "data" / "tls"
AUTHORITY = TLS / "authority.pem"
"""Signed `trusted`, `expired` (for localhost) and `other_name` (for another host)."""

_ECHO = f"{KEY} {CONTENT}"
_ECHOING_HEADERS = (
    f"X-Echo: {_ECHO}",
    f"Server: {_ECHO}",
    f"Location: http://localhost:9/{KEY}?{CONTENT}",
    f"WWW-Authenticate: Bearer {_ECHO}",
    f"Retry-After: {_ECHO}",
    f"Set-Cookie: {KEY}={CONTENT}; Domain={CONTENT}",
    f"Set-Cookie: {_ECHO}={CONTENT}",
    f"Content-Type: text/html; charset={KEY}",
    f"Content-Disposition: {_ECHO}",
)


def echoing(status: int, body: object = None, *headers: str) -> Fault:
    """Answer with a status, and with the key and the content in reason, headers and body."""
    told = {"error": _ECHO, "message": f"Bearer {KEY}", "errors": [CONTENT], "success": False}
    data = json.dumps(told if body is None else body).encode()

    async def answer(connection: Connection) -> bool:
        await connection.request()
        lines = [
            f"HTTP/1.1 {status} {_ECHO}",
            f"Content-Length: {len(data)}",
            *_ECHOING_HEADERS,
            *headers,
            "",
            "",
        ]
        await connection.write("\r\n".join(lines).encode() + data)
        return False

    return answer


def saying(*parts: bytes) -> Fault:
    """Send bytes that may be no HTTP, and end the connection."""

    async def answer(connection: Connection) -> bool:
        await connection.request()
        for part in parts:
            await connection.write(part)
        return False

    return answer


async def _partly(connection: Connection) -> bool:
    """Take the first event, and say of the others what is wrong with them, at length."""
    ids = await connection.request()
    told = {"event_ids": ids[:1], "errors": [_ECHO] * (len(ids) - 1), "success": True}
    await connection.answer(500, json.dumps(told).encode(), *_ECHOING_HEADERS)
    return True


async def _reset_on_accept(connection: Connection) -> bool:
    connection.reset()
    return False


async def _close_on_accept(_: Connection) -> bool:
    return False


async def _reset_after_head(connection: Connection) -> bool:
    await connection.head()
    connection.reset()
    return False


async def _reset_in_the_body(connection: Connection) -> bool:
    head = await connection.head()
    await connection.reader.readexactly(content_length(head) // 2)
    connection.reset()
    return False


async def _reset_after_body(connection: Connection) -> bool:
    await connection.request()
    connection.reset()
    return False


async def _hang_unread(connection: Connection) -> bool:
    await connection.head()
    await asyncio.Event().wait()
    return False


async def hang(connection: Connection) -> bool:
    """Take the request and say nothing."""
    await connection.request()
    await asyncio.Event().wait()
    return False


async def _hang_in_the_answer(connection: Connection) -> bool:
    await connection.request()
    await connection.write(f"HTTP/1.1 200 {_ECHO}\r\nContent-Length: 99\r\n\r\n{_ECHO}".encode())
    await asyncio.Event().wait()
    return False


_OK = b"HTTP/1.1 200 OK\r\n"
_BYTES = _ECHO.encode()

BROKEN: dict[str, Fault] = {
    "good": good,
    "reset on accept": _reset_on_accept,
    "close on accept": _close_on_accept,
    "reset after the head": _reset_after_head,
    "reset in the body": _reset_in_the_body,
    "reset after the body": _reset_after_body,
    "hang unread": _hang_unread,
    "hang": hang,
    "hang in the answer": _hang_in_the_answer,
    "close without an answer": saying(),
    "half a status line": saying(b"HTTP/1.1 20"),
    "half of the headers": saying(_OK + b"X-Echo: " + _BYTES),
    "half of the body": saying(_OK + b"Content-Length: 1000\r\n\r\n" + _BYTES),
    "no HTTP": saying(_BYTES + b"\r\n\r\n"),
    "a status that is none": saying(b"HTTP/1.1 " + _BYTES + b"\r\n\r\n"),
    "a header without a colon": saying(_OK + _BYTES + b"\r\n\r\n"),
    "a header with a NUL": saying(_OK + b"X: \0" + _BYTES + b"\r\n\r\n"),
    "a header without end": saying(_OK + b"X: ", *[_BYTES * 100] * 10),
    "a length that is none": saying(_OK + b"Content-Length: " + _BYTES + b"\r\n\r\n"),
    "two lengths": saying(_OK + b"Content-Length: 5\r\nContent-Length: 9\r\n\r\n" + _BYTES),
    "an encoding that is none": saying(_OK + b"Transfer-Encoding: " + _BYTES + b"\r\n\r\n" + _BYTES),
    "a chunk that is none": saying(
        _OK + b"Transfer-Encoding: chunked\r\n\r\n" + _BYTES + b"\r\n", _BYTES + b"\r\n"
    ),
    "trailers": saying(
        _OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Echo: " + _BYTES + b"\r\n\r\n"
    ),
    "gzip that is none": saying(_OK + b"Content-Encoding: gzip\r\n\r\n" + _BYTES),
    "other than was asked": saying(b"HTTP/1.1 101 Switching\r\nUpgrade: " + _BYTES + b"\r\n\r\n" + _BYTES),
    "early hints": saying(b"HTTP/1.1 103 Early\r\nLink: " + _BYTES + b"\r\n\r\n", _OK + b"\r\n"),
    "not JSON": saying(_OK + b"\r\n<html>" + _BYTES),
    "partly taken": _partly,
    "partly taken without ids": echoing(500, {"errors": [_ECHO], "success": True}),
    "ids of others": echoing(500, {"event_ids": [KEY, CONTENT], "errors": [_ECHO], "success": True}),
    "taken under ids of others": echoing(200, {"event_ids": [KEY], "success": True}),
}
"""What may go wrong with a request, by name."""


def statuses(every: bool) -> Iterator[int]:
    """Yield the statuses to answer with: all there may be, or those that mean something."""
    if every:
        yield from range(200, 600)
    else:
        yield from (200, 202, 204, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 407, 408)
        yield from (409, 410, 413, 415, 418, 422, 425, 429, 431, 451, 500, 501, 502, 503, 504, 511, 599)


def wrapped(certificate: str, then: Fault) -> Fault:
    """Do it behind TLS, with a certificate of that name in `tests/data`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / f"{certificate}.pem")

    async def secured(connection: Connection) -> bool:
        await connection.writer.start_tls(context)
        return await then(connection)

    return secured


async def tunnel(connection: Connection) -> bool:
    """Be a proxy for https."""
    head = await connection.head()
    host, _, port = head.split()[1].decode().rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await connection.write(b"HTTP/1.1 200 Established\r\n\r\n")
    await asyncio.gather(_pump(connection, reader), _dump(connection, writer))
    return False


async def _pump(connection: Connection, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(65_536):
        await connection.write(data)
    connection.writer.close()


async def _dump(connection: Connection, writer: asyncio.StreamWriter) -> None:
    while data := await connection.reader.read(65_536):
        connection.server.bodies.append(data)  # what a proxy sees of what passes
        writer.write(data)
    writer.close()


def refusing(answer: bytes) -> Fault:
    """Be a proxy that does not let anybody through."""

    async def refuse(connection: Connection) -> bool:
        await connection.head()
        await connection.write(answer)
        return False

    return refuse


PROXIES: dict[str, Fault] = {
    "a tunnel": tunnel,
    "a proxy that wants a login": refusing(
        f"HTTP/1.1 407 {_ECHO}\r\nContent-Length: 0\r\nX: {_ECHO}\r\n\r\n".encode()
    ),
    "a proxy that fails": refusing(f"HTTP/1.1 502 {_ECHO}\r\nX: {_ECHO}\r\n\r\n{_ECHO}".encode()),
    "a proxy that babbles": refusing(_BYTES + b"\r\n\r\n"),
    "a proxy that redirects": refusing(
        f"HTTP/1.1 307 {_ECHO}\r\nLocation: http://localhost:9/{KEY}\r\n\r\n".encode()
    ),
}


def always(fault: Fault) -> RawServer:
    """Make a server that never does anything else."""
    return RawServer(*[fault] * 200)
