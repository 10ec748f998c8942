"""Who is let in, and how much is read: keys, hosts, encodings and the ceiling."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from honeyhive_batcher.testing import MAX_BODY_BYTES, Collector, collector

Call = Callable[..., Awaitable[tuple[int, Any]]]
Make = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.anyio

PATH = "/events/model/batch"


def body_of(size: int) -> bytes:
    """A good body of exactly so many bytes."""
    head, tail = b'{"model_events":[{"model_name":"', b'"}]}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


async def raw_exchange(hive: Collector, *parts: bytes) -> tuple[str, bytes]:
    """Write bytes to the collector and return the status line and the body of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(hive.url.rpartition(":")[2]))
    try:
        async with asyncio.timeout(10):
            for part in parts:
                writer.write(part)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return head.partition(b"\r\n")[0].decode(), await reader.readexactly(length)
    finally:
        writer.close()
        await writer.wait_closed()


def head(*lines: str) -> bytes:
    lines = (f"POST {PATH} HTTP/1.1", "Authorization: Bearer k", "Content-Type: application/json", *lines)
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer ", "Basic aGg6aGg=", "hh_key", "Bearer two words"]
)
async def test_without_a_bearer_token_nothing_is_taken(hive: Collector, event: Make, given: Any) -> None:
    headers = {} if given is None else {"Authorization": given}
    async with aiohttp.ClientSession(hive.url, headers=headers) as client:
        async with client.post(PATH, json={"model_events": [event()]}) as response:
            assert response.status == 401
            assert await response.json() == {
                "statusCode": 401,
                "message": "Authorization: Bearer <api key> required",
                "success": False,
                "errorCode": "UNAUTHORIZED",
            }
        async with client.put("/events", json={"event_id": "e"}) as response:
            assert response.status == 401
    assert hive.events() == []


@pytest.mark.parametrize(("given", "status"), [("hh_right", 200), ("hh_wrong", 401), ("HH_RIGHT", 401)])
async def test_a_collector_with_a_key_takes_no_other(event: Make, given: Any, status: int) -> None:
    headers = {"Authorization": f"Bearer {given}"}
    async with (
        collector(api_key="hh_right") as hive,
        aiohttp.ClientSession(hive.url, headers=headers) as client,
    ):
        async with client.post(PATH, json={"model_events": [event()]}) as response:
            assert response.status == status
            if status == 401:
                assert (await response.json())["message"] == "API key not accepted"
        assert hive.settings() == {"base_url": hive.url, "api_key": "hh_right"}


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:1", "localhost", "LOCALHOST:8787", "[::1]", "[::1]:80"]
)
async def test_names_of_the_loopback_are_let_in(client: aiohttp.ClientSession, host: str) -> None:
    async with client.get("/_dev/stats", headers={"Host": host}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:80",
        "[::1].evil.example",
        "[::1]x:1",
        "",
        "::1",
    ],
)
async def test_a_foreign_host_is_refused_on_every_route(
    client: aiohttp.ClientSession, hive: Collector, event: Make, host: str
) -> None:
    """Otherwise any web page could read the prompts, by making its own name resolve to 127.0.0.1."""
    for method, path in [("GET", "/_dev/events"), ("DELETE", "/_dev/events"), ("POST", PATH), ("GET", "/")]:
        body = {"model_events": [event()]}
        async with client.request(method, path, json=body, headers={"Host": host}) as response:
            assert response.status == 403
            assert (await response.json())["errorCode"] == "FORBIDDEN"
    assert hive.events() == []


async def test_a_request_without_a_host_is_refused(hive: Collector) -> None:
    status, _ = await raw_exchange(hive, b"GET /_dev/stats HTTP/1.0\r\n\r\n")
    assert status == "HTTP/1.0 403 Forbidden"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", PATH),
        ("POST", PATH + "/"),
        ("POST", "/" + PATH),
        ("POST", "/events"),
        ("POST", "/v1/events/batch"),
        ("POST", "/session/start"),
        ("OPTIONS", PATH),
        ("GET", "/_dev"),
        ("POST", "/_dev/events"),
        ("DELETE", "/_dev/faults"),
    ],
)
async def test_what_is_not_emulated_is_an_explicit_404(
    client: aiohttp.ClientSession, hive: Collector, method: str, path: str
) -> None:
    async with client.request(method, hive.url + path) as response:
        assert response.status == 404
        assert await response.json() == {
            "statusCode": 404,
            "message": f"not emulated by the collector: {method} {path}",
            "success": False,
            "errorCode": "NOT_FOUND",
        }


async def test_a_head_request_is_a_404_as_well(client: aiohttp.ClientSession) -> None:
    async with client.head("/_dev/events") as response:
        assert response.status == 404


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_that_is_not_declared_as_json_is_refused(
    post_bytes: Call, hive: Collector, content_type: str
) -> None:
    status, answer = await post_bytes(body_of(100), **{"Content-Type": content_type})
    assert (status, answer["message"]) == (
        415,
        f"Content-Type: application/json required, got {content_type}",
    )
    assert hive.events() == []


@pytest.mark.parametrize(
    ("size", "status"), [(MAX_BODY_BYTES - 1, 200), (MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)]
)
@pytest.mark.parametrize("way", ["declared", "chunked", "gzip"])
async def test_the_ceiling_is_exact_and_inclusive(
    post_bytes: Call, hive: Collector, size: int, status: int, way: str
) -> None:
    body: bytes | AsyncIterator[bytes] = body_of(size)
    headers = {}
    if way == "gzip":
        body, headers = gzip.compress(body_of(size)), {"Content-Encoding": "gzip"}
    if way == "chunked":
        body = in_chunks(body_of(size))
    got, answer = await post_bytes(body, **headers)
    assert got == status
    assert len(hive.events()) == (status == 200)
    if status == 413:
        assert answer == {
            "statusCode": 413,
            "message": "Payload too large: request exceeds the 5 MB limit (5000000 bytes)",
            "success": False,
            "errorCode": "PAYLOAD_TOO_LARGE",
        }


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 65536):
        yield body[at : at + 65536]


async def test_a_declared_length_over_the_ceiling_is_refused_unread(hive: Collector) -> None:
    status, _ = await raw_exchange(hive, head("Host: localhost", "Content-Length: 5000001"))
    assert status.startswith("HTTP/1.1 413")
    assert hive.requests()[-1].bytes == 0


async def test_an_endless_body_is_refused_at_the_ceiling(hive: Collector) -> None:
    """Refused while the client is still writing: the collector never holds more than the ceiling."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    parts = [chunk] * (MAX_BODY_BYTES // 0x10000 + 2)
    status, _ = await raw_exchange(hive, head("Host: localhost", "Transfer-Encoding: chunked"), *parts)
    assert status.startswith("HTTP/1.1 413")
    assert MAX_BODY_BYTES < hive.requests()[-1].bytes < MAX_BODY_BYTES + 1_000_000


async def test_a_client_that_leaves_in_the_middle_creates_nothing() -> None:
    ended = asyncio.Event()
    async with asyncio.timeout(10), Collector(on_request=lambda _: ended.set()) as hive:
        _, writer = await asyncio.open_connection("127.0.0.1", int(hive.url.rpartition(":")[2]))
        writer.write(head("Host: localhost", "Content-Length: 100") + b'{"model_events":')
        # Asked on a later connection, so the first one has been accepted and read up to here.
        async with (
            aiohttp.ClientSession(hive.url) as client,
            client.get("/_dev/requests") as response,
        ):
            assert len(await response.json()) == 1
        writer.transport.abort()
        await ended.wait()
        (request,) = hive.requests()
        assert (request.status, request.message) == (None, "no answer: the client went away")
        assert request.latency is not None
        assert hive.events() == []


async def test_a_compressed_body_is_the_same_as_a_plain_one(post_bytes: Call, hive: Collector) -> None:
    wire = gzip.compress(b'{"model_events":[{"model_name":"m"}]}')
    status, _ = await post_bytes(wire, **{"Content-Encoding": "gzip"})
    assert status == 200
    assert hive.events()[0].event["model_name"] == "m"
    assert (hive.requests()[0].encoding, hive.requests()[0].bytes) == ("gzip", len(wire))


async def test_a_gzip_bomb_is_stopped_at_the_ceiling(post_bytes: Call) -> None:
    stream = zlib.compressobj(9, wbits=31)
    bomb = b"".join(stream.compress(bytes(1_000_000)) for _ in range(50)) + stream.flush()
    assert len(bomb) < 1_000_000
    status, _ = await post_bytes(bomb, **{"Content-Encoding": "gzip"})
    assert status == 413


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"not gzip", "body: broken gzip: Error -3"),
        (b"", "body: broken gzip: it ends too early"),
        (gzip.compress(body_of(100))[:-9], "body: broken gzip: it ends too early"),
        (gzip.compress(body_of(100)) + b"more", "body: broken gzip: something follows its end"),
    ],
    ids=["text", "empty", "cut", "longer"],
)
async def test_a_broken_gzip_stream_is_refused(
    post_bytes: Call, hive: Collector, wire: bytes, message: str
) -> None:
    status, answer = await post_bytes(wire, **{"Content-Encoding": "gzip"})
    assert status == 400
    assert answer["message"].startswith(message)
    assert hive.events() == []


@pytest.mark.parametrize("encoding", ["zstd", "br", "deflate", "gzip, gzip"])
async def test_other_encodings_are_refused(post_bytes: Call, encoding: str) -> None:
    status, answer = await post_bytes(body_of(100), **{"Content-Encoding": encoding})
    assert (status, answer["message"]) == (415, f"Content-Encoding: {encoding} is not supported")


async def test_the_key_is_never_stored(tmp_path: Path, event: Make) -> None:
    db = tmp_path / "dev.db"
    headers = {"Authorization": "Bearer hh_very_secret"}
    async with collector(db=db) as hive, aiohttp.ClientSession(hive.url, headers=headers) as client:
        async with client.post(PATH, json={"model_events": [event()]}) as response:
            assert response.status == 200
        async with client.get("/elsewhere") as response:
            assert response.status == 404
    assert b"hh_very_secret" not in db.read_bytes()
    assert json.dumps(event()["usage"]).encode()[:5] in db.read_bytes()
