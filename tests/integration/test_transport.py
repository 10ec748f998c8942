"""The one HTTP client: bounded replies, exact time-outs, TLS, proxies, and a key that never shows."""

import asyncio
import base64
import contextlib
import gzip
import logging
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from honeyhive_batcher import Batcher
from honeyhive_batcher.config import EndpointSettings
from honeyhive_batcher.core.model import Failure, Reply, Response
from honeyhive_batcher.core.request import Request
from honeyhive_batcher.runtime.sockets import Sockets
from honeyhive_batcher.runtime.transport import AiohttpTransport
from honeyhive_batcher.testing import Faults, collector
from tests.fakes import fates
from tests.integration.conftest import DATA, open_sockets
from tests.integration.raw_server import Connection, Fault, RawServer, good, server_tls

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

KEY = "hh_canary_key_that_nobody_may_see"
EVENT = {"model": "gpt-4o"}
REQUEST = Request(
    method="POST",
    path="/events/model/batch",
    parts=(b'{"model_events":[{"event_id":"a"}]}',),
    max_reply_bytes=65_536,
)


async def send(server: RawServer, request: Request = REQUEST, **settings: Any) -> Reply:
    """Send one request through a transport of its own."""
    usual = {"api_key": KEY, "base_url": server.url, "request_timeout": 5.0}
    transport = AiohttpTransport(EndpointSettings(**{**usual, **settings}))
    await transport.open()
    try:
        return await transport.send(request)
    finally:
        await transport.close()


# Bounded replies.


def endless(chunk: bytes, *, times: int, headers: str) -> Fault:
    async def answer(connection: Connection) -> bool:
        await connection.request()
        await connection.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode())
        for _ in range(times):
            await connection.write(chunk)
        return False

    return answer


MEBIBYTE = b"x" * 2**20
BOMB = gzip.compress(b"\0" * (50 * 2**20))


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(endless(MEBIBYTE, times=50, headers=f"Content-Length: {50 * 2**20}"), id="long"),
        pytest.param(
            endless(b"100000\r\n" + MEBIBYTE + b"\r\n", times=50, headers="Transfer-Encoding: chunked"),
            id="chunked",
        ),
        pytest.param(endless(MEBIBYTE, times=50, headers="Connection: close"), id="until the end"),
        pytest.param(
            endless(BOMB, times=1, headers=f"Content-Encoding: gzip\r\nContent-Length: {len(BOMB)}"),
            id="bomb",
        ),
    ],
)
async def test_a_huge_answer_costs_little_memory_and_does_not_stall_the_loop(fault: Fault) -> None:
    async with RawServer(good, fault) as server:
        await send(server)  # what aiohttp takes once is not counted
        stalls = asyncio.create_task(longest_stall())
        with peak_memory() as peak:
            reply = await send(server)
        stalls.cancel()
        assert isinstance(reply, Response)
        assert reply.status == 200
        assert len(reply.body) <= REQUEST.max_reply_bytes
        assert peak() < 8 * 2**20  # the server's own buffers included
        assert await stalls < 0.2


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Yield what returns the most memory, in bytes, that was taken inside and held at once."""
    peaks: list[int] = []
    tracemalloc.start()
    try:
        yield lambda: peaks[0]
        peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


async def longest_stall() -> float:
    """Return the longest time between two turns of the loop until cancelled."""
    longest, before = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0.001)
            longest, before = max(longest, time.perf_counter() - before), time.perf_counter()
    except asyncio.CancelledError:
        return longest


async def test_as_much_of_an_answer_is_read_as_asked_for() -> None:
    async with RawServer(endless(b"x" * 1000, times=100, headers="Content-Length: 100000")) as server:
        reply = await send(server, Request(method="POST", path="/", parts=(b"{}",), max_reply_bytes=1234))
        assert reply == Response(status=200, body=b"x" * 1234)


async def test_an_answer_is_not_unpacked() -> None:
    packed = gzip.compress(b"{}" * 1000)
    fault = endless(packed, times=1, headers=f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}")
    async with RawServer(fault) as server:
        assert await send(server) == Response(status=200, body=packed)


async def test_endless_headers_are_not_read_for_ever() -> None:
    async def answer(connection: Connection) -> bool:
        await connection.request()
        await connection.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(10**9):
            await connection.write(b"X-%d: %s\r\n" % (number, b"y" * 1000))
        return False

    async with RawServer(answer) as server:
        with peak_memory() as peak:
            reply = await send(server, request_timeout=1.0)
        assert isinstance(reply, Failure)
        assert not reply.unsent
        assert peak() < 8 * 2**20


async def test_what_is_read_in_one_turn_of_the_loop_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def announce(connection: Connection) -> bool:
        await connection.request()
        while True:
            await connection.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 4000)

    pieces: list[int] = []
    received = aiohttp.client_proto.ResponseHandler.data_received

    def data_received(self: Any, data: bytes) -> None:
        pieces.append(len(data))
        received(self, data)

    monkeypatch.setattr(aiohttp.client_proto.ResponseHandler, "data_received", data_received)
    async with RawServer(announce) as server:
        reply = await send(server, request_timeout=0.5)
    assert isinstance(reply, Failure)
    assert len(pieces) > 10
    assert max(pieces) <= 32 * 1024  # without a bound of ours it is 256 KiB


# Time.


@pytest.mark.parametrize("stage", ["before", "headers", "body"])
async def test_a_request_takes_no_longer_than_its_timeout(stage: str) -> None:
    async def trickle(connection: Connection) -> bool:
        await connection.request()
        if stage != "before":
            await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n")
        if stage == "body":
            await connection.write(b"\r\n")
        while stage != "before":
            await connection.write(b"X" if stage == "body" else b"X: y\r\n")
            await asyncio.sleep(0.02)
        await asyncio.Event().wait()
        return False

    async with RawServer(trickle) as server:
        began_at = time.perf_counter()
        reply = await send(server, request_timeout=0.5)
        assert 0.5 <= time.perf_counter() - began_at < 0.55
        if stage == "body":
            assert reply == Response(status=200)
        else:
            assert reply == Failure(cause="the request timed out", unsent=False)


async def test_a_timeout_of_some_seconds_is_not_rounded_up_to_a_whole_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    call_at = loop.call_at
    delays: list[float] = []

    def note(when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        delays.append(when - loop.time())
        return call_at(when, *args, **options)

    monkeypatch.setattr(loop, "call_at", note)
    async with RawServer() as server:
        await send(server, request_timeout=11.7)
    assert any(11.6 < delay <= 11.7001 for delay in delays)  # for all of it
    assert any(5.8 < delay <= 5.8501 for delay in delays)  # for connecting
    assert max(delays) <= 11.7001


async def test_a_server_that_reads_nothing_costs_the_timeout() -> None:
    async def hang(connection: Connection) -> bool:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it can read, too
        await asyncio.Event().wait()
        return False

    async with RawServer(hang) as server:
        body = b"x" * (16 * 2**20)
        began_at = time.perf_counter()
        reply = await send(
            server, Request(method="POST", path="/", parts=(body,), max_reply_bytes=100), request_timeout=0.5
        )
        assert time.perf_counter() - began_at < 0.6
        assert reply == Failure(cause="the request timed out", unsent=False)


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("soon", None), ("9" * 30, 3600.0)])
async def test_what_the_server_asks_to_wait_is_told(value: str, seconds: float | None) -> None:
    async def busy(connection: Connection) -> bool:
        await connection.request()
        await connection.answer(429, b"later", f"Retry-After: {value}")
        return True

    async with RawServer(busy) as server:
        assert await send(server) == Response(status=429, body=b"later", retry_after=seconds)


async def test_a_pause_that_the_server_asks_for_is_kept() -> None:
    async with collector(faults=Faults(fail={503: 1.0}, retry_after="1")) as hive:
        async with Batcher(**hive.settings(), flush_interval=0) as batcher:
            batcher.push({**EVENT, "model_name": "m"})
            assert not await batcher.flush(timeout=0.5)
            hive.faults = Faults()
            assert await batcher.flush(timeout=10)
        first, second = hive.requests()
        assert second.received_at - first.received_at >= 1.0


# TLS.


async def tls(connection: Connection) -> bool:
    await connection.writer.start_tls(server_tls())
    return await good(connection)


async def test_a_certificate_that_is_not_trusted_is_refused_and_nothing_is_sent() -> None:
    async with RawServer(tls, tls=True) as server:
        reply = await send(server)
        assert reply == Failure(cause="the server's certificate is not trusted", unsent=True)
        assert server.heads == []


async def test_a_certificate_that_is_not_verified_is_taken() -> None:
    async with RawServer(tls, tls=True) as server:
        reply = await send(server, verify_tls=False)
        assert isinstance(reply, Response)
        assert reply.status == 200


async def test_a_certificate_that_the_system_trusts_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default context reads SSL_CERT_FILE when it is made, which aiohttp does when it is imported."""
    import ssl  # noqa: PLC0415

    trusting = ssl.create_default_context(cafile=str(DATA / "self_signed_localhost.pem"))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting)
    async with RawServer(tls, tls=True) as server:
        reply = await send(server)
        assert isinstance(reply, Response)


# Proxies, and what else the environment says.


async def proxy(connection: Connection) -> bool:
    """Answer in place of the server: enough of a proxy for plain http."""
    return await good(connection)


async def test_a_proxy_named_by_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(proxy) as stub, RawServer() as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://us%40er:pass%2Fword@localhost:{stub.port}")
        reply = await send(server)
        assert isinstance(reply, Response)
        assert reply.status == 200
        assert server.connections == 0
        (head,) = stub.heads
        assert head.startswith(f"POST {server.url}/events/model/batch ".encode())
        login = base64.b64encode(b"us@er:pass/word")
        assert b"Proxy-Authorization: Basic " + login in head


async def test_a_proxy_named_without_a_scheme_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(proxy) as stub, RawServer() as server:
        monkeypatch.setenv("http_proxy", f"localhost:{stub.port}")
        await send(server)
        assert (len(stub.heads), server.connections) == (1, 0)
        assert b"Proxy-Authorization" not in stub.heads[0]


async def test_no_proxy_is_used_for_a_host_that_is_exempt(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(proxy) as stub, RawServer() as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://localhost:{stub.port}")
        monkeypatch.setenv("NO_PROXY", "localhost")
        await send(server)
        assert (stub.connections, server.connections) == (0, 1)


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (407, Response(status=407)),
        (502, Failure(cause="the proxy answered HTTP 502", unsent=True)),
    ],
)
async def test_a_proxy_that_does_not_let_us_through_has_sent_nothing_on(
    status: int, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(connection: Connection) -> bool:
        await connection.head()
        await connection.answer(status)
        return False

    async with RawServer(refuse) as stub:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:mine@localhost:{stub.port}")
        assert await send(stub, base_url="https://honeyhive.invalid") == reply
        (head,) = stub.heads
        assert head.startswith(b"CONNECT honeyhive.invalid:443 ")
        assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:mine") in head
        assert KEY.encode() not in head


async def test_through_a_tunnel_the_key_reaches_the_server_and_not_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def tunnel(connection: Connection) -> bool:
        head = await connection.head()
        host, port = head.split()[1].decode().split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await connection.write(b"HTTP/1.1 200 Established\r\n\r\n")
        await asyncio.gather(pump(connection.reader, writer), pump(reader, connection.writer))
        return False

    async with RawServer(tls, tls=True) as server, RawServer(tunnel) as stub:
        monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{stub.port}")
        reply = await send(server, verify_tls=False)
        assert isinstance(reply, Response)
        assert reply.status == 200
        assert f"Authorization: Bearer {KEY}".encode() in server.heads[0]
        assert b"uthorization" not in stub.heads[0]


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until there are no more."""
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


async def test_a_proxy_that_is_not_there_has_sent_nothing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer() as server:
        async with RawServer() as stub:
            port = stub.port
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        assert await send(server) == Failure(cause="cannot connect (Connection refused)", unsent=True)


async def test_logins_in_netrc_are_none_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login me password mine\ndefault login me password mine\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with RawServer() as server:
        reply = await send(server)
        assert isinstance(reply, Response)
        assert f"Authorization: Bearer {KEY}".encode() in server.heads[0]


# What is odd.


async def test_whatever_aiohttp_raises_becomes_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError(f"with {KEY}")

    async with RawServer() as server:
        monkeypatch.setattr(aiohttp.ClientSession, "request", fail)
        reply = await send(server)
        assert reply == Failure(cause="the request failed (RuntimeError)", unsent=False)


async def test_closing_twice_is_as_good_as_once() -> None:
    transport = AiohttpTransport(EndpointSettings(api_key=KEY))
    await transport.close()
    await transport.open()
    await transport.close()
    await transport.close()


# The key.


async def reset_after_body(connection: Connection) -> bool:
    await connection.request()
    connection.reset()
    return False


def answering(status: int) -> Fault:
    async def answer(connection: Connection) -> bool:
        await connection.request()
        await connection.answer(status, b'{"error":"no"}')
        return True

    return answer


async def garbage(connection: Connection) -> bool:
    await connection.request()
    await connection.write(b"\x00\xff nothing like HTTP\r\n\r\n")
    return False


@pytest.mark.parametrize(
    "fault",
    [
        good,
        reset_after_body,
        garbage,
        *(answering(status) for status in (200, 307, 400, 401, 403, 407, 413, 429, 500, 503)),
    ],
)
async def test_the_key_and_what_events_hold_never_show(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    payload = "canary payload"
    shown: list[str] = []
    async with RawServer(*[fault] * 3) as server:
        batcher = Batcher(
            api_key=KEY, base_url=server.url, flush_interval=0, max_retries=1, backoff_base=0.01
        )
        await batcher.start()
        batcher.push({**EVENT, "messages": [payload]})
        result = await batcher.flush(timeout=5)
        shown += [repr(batcher), repr(batcher.config), str(batcher.config), repr(result)]
        await batcher.aclose(timeout=0.1)
        shown += [repr(batcher.statistics()), repr(batcher.statistics().last_error)]
        shown += [repr(vars(batcher)), repr(batcher._lifecycle._worker), caplog.text]
    asyncio.get_running_loop().set_debug(False)
    shown += [repr(vars(record)) for record in caplog.records]
    for text in shown:
        assert KEY not in text
        assert payload not in text
    assert fates(batcher)


# Connections that are given up.


async def never_reads(connection: Connection) -> bool:
    if connection.server.tls:
        await connection.writer.start_tls(server_tls())
    try:
        await asyncio.Event().wait()
    finally:
        connection.writer.transport.abort()  # TLS would wait for the other side to say goodbye
    return False


@pytest.mark.parametrize(("https", "timeout"), [(False, 0.5), (True, 3.0)])
async def test_a_request_that_is_given_up_in_the_midst_leaves_no_connection_behind(
    https: bool, timeout: float
) -> None:
    """Its connection would wait for ever to be rid of the rest of the body."""
    async with RawServer(never_reads, tls=https) as server:
        before = open_sockets()
        large = msgspec.structs.replace(REQUEST, parts=(b"x" * (16 * 2**20),))
        reply = await send(server, large, request_timeout=timeout, verify_tls=False)
        assert reply == Failure(cause="the request timed out", unsent=False)
        accepted = 1  # the server's own end, which it still holds
        assert len(open_sockets() - before) <= accepted


async def test_the_kernel_gives_up_what_nobody_reads_when_the_request_would_have_ended() -> None:
    sockets = Sockets(0.5)
    with sockets((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))) as made:
        assert not made.getblocking()
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        assert option is None or made.getsockopt(socket.IPPROTO_TCP, option) == 500
    await sockets.shut_down()
