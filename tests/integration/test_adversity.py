"""Every way in which a request may fail, with the policy for duplicates and with the one for losses.

What each looks like to aiohttp was measured; here is what each means: whether the server may have it.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from honeyhive_batcher import Batcher
from tests.fakes import fates
from tests.integration.conftest import DATA
from tests.integration.raw_server import Connection, Fault, RawServer, bound_socket, content_length, good

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

OnAmbiguous = Literal["retry", "drop"]

EVENTS = 4
CONTENT = "x" * 100_000
"""As much in each event, so that a body is more than the kernel takes at once."""


def make_batcher(server: RawServer, **settings: Any) -> Batcher:
    usual = {"request_timeout": 5.0, "backoff_base": 0.01, "flush_interval": 0.0, "verify_tls": False}
    return Batcher(api_key="hh_test", base_url=server.url, **{**usual, **settings})


def push(batcher: Batcher) -> None:
    for number in range(EVENTS):
        assert batcher.push({"model": "gpt-4o", "event_id": f"event-{number}", "content": CONTENT})


# Faults, by what the server may have of the request.


async def reset_on_accept(connection: Connection) -> bool:
    connection.reset()
    return False


async def close_on_accept(_: Connection) -> bool:
    return False


async def reset_after_headers(connection: Connection) -> bool:
    await connection.head()
    connection.reset()
    return False


async def close_after_headers(connection: Connection) -> bool:
    await connection.head()
    return False


async def reset_mid_body(connection: Connection) -> bool:
    head = await connection.head()
    await connection.reader.readexactly(content_length(head) // 4)
    connection.reset()
    return False


async def hang_without_reading(connection: Connection) -> bool:
    await connection.head()
    await asyncio.Event().wait()
    return False


async def reset_after_body(connection: Connection) -> bool:
    await connection.request()
    connection.reset()
    return False


async def close_after_body(connection: Connection) -> bool:
    await connection.request()
    return False


async def half_a_status_line(connection: Connection) -> bool:
    await connection.request()
    await connection.write(b"HTTP/1.1 20")
    return False


async def half_of_the_headers(connection: Connection) -> bool:
    await connection.request()
    await connection.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    return False


async def no_http_at_all(connection: Connection) -> bool:
    await connection.request()
    await connection.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    return False


async def hang_after_reading(connection: Connection) -> bool:
    await connection.request()
    await asyncio.Event().wait()
    return False


UNREAD: list[Fault] = [
    reset_on_accept,
    close_on_accept,
    reset_after_headers,
    close_after_headers,
    reset_mid_body,
    hang_without_reading,
]
READ: list[Fault] = [
    reset_after_body,
    close_after_body,
    half_a_status_line,
    half_of_the_headers,
    no_http_at_all,
    hang_after_reading,
]


def named(faults: list[Fault]) -> list[Any]:
    return [pytest.param(fault, id=fault.__name__) for fault in faults]


@pytest.mark.parametrize("fault", named([*UNREAD, *READ]))
async def test_what_may_have_arrived_is_sent_again_byte_for_byte_and_nothing_is_lost(fault: Fault) -> None:
    timeout = 0.3 if "hang" in repr(fault) else 5.0
    async with RawServer(fault) as server, make_batcher(server, request_timeout=timeout) as batcher:
        push(batcher)
        assert await batcher.flush(timeout=10)
        assert fates(batcher) == {"delivered": EVENTS}
        assert set(server.taken) == {f"event-{number}" for number in range(EVENTS)}
        copies = 2 if fault in READ else 1
        assert len(server.taken) == copies * EVENTS
        assert len(server.bodies) == copies
        assert len(set(server.bodies)) == 1
        assert batcher.statistics().requests == 2


@pytest.mark.parametrize("fault", named([*UNREAD, *READ]))
async def test_what_may_have_arrived_is_never_sent_again_when_duplicates_are_worse(fault: Fault) -> None:
    timeout = 0.3 if "hang" in repr(fault) else 5.0
    async with (
        RawServer(fault) as server,
        make_batcher(server, request_timeout=timeout, on_ambiguous="drop") as batcher,
    ):
        push(batcher)
        result = await batcher.flush(timeout=10)
        assert (result.unconfirmed, result.held) == (EVENTS, 0)
        assert fates(batcher) == {"unconfirmed": EVENTS}
        assert batcher.statistics().requests == 1
        assert len(server.taken) == (EVENTS if fault in READ else 0)


@pytest.mark.parametrize("on_ambiguous", ["retry", "drop"])
@pytest.mark.parametrize("fault", named([reset_on_accept, reset_after_headers, close_on_accept]))
async def test_a_connection_that_is_closed_while_it_is_reused_is_as_ambiguous_as_any(
    fault: Fault, on_ambiguous: OnAmbiguous
) -> None:
    """The keep-alive race: aiohttp would send another method than POST again by itself."""

    async def after_one_byte(connection: Connection) -> bool:
        await connection.reader.readexactly(1)
        return await fault(connection)

    async with (
        RawServer(good, after_one_byte) as server,
        make_batcher(server, on_ambiguous=on_ambiguous) as batcher,
    ):
        assert batcher.push({"model": "first"})
        assert await batcher.flush(timeout=10)
        push(batcher)
        await batcher.flush(timeout=10)
        assert server.connections == (2 if on_ambiguous == "retry" else 1)
        assert fates(batcher) == (
            {"delivered": 1 + EVENTS} if on_ambiguous == "retry" else {"delivered": 1, "unconfirmed": EVENTS}
        )
        assert len(server.taken) == len(set(server.taken))


async def test_a_connection_that_was_closed_while_idle_is_made_anew() -> None:
    closed = asyncio.Event()

    async def close_when_idle(connection: Connection) -> bool:
        await good(connection)
        closed.set()
        return False

    async with RawServer(close_when_idle) as server, make_batcher(server, on_ambiguous="drop") as batcher:
        assert batcher.push({"model": "first"})
        assert await batcher.flush(timeout=10)
        await closed.wait()
        await asyncio.sleep(0.02)  # the FIN has to be seen, and nothing here can tell when
        push(batcher)
        assert await batcher.flush(timeout=10)
        assert server.connections == 2


# What surely never left is sent again under both policies.


@pytest.mark.parametrize("on_ambiguous", ["retry", "drop"])
async def test_a_refused_port_costs_nothing(on_ambiguous: OnAmbiguous) -> None:
    sock = bound_socket()
    server = RawServer(sock=sock)
    server.port = sock.getsockname()[1]
    async with make_batcher(server, on_ambiguous=on_ambiguous, max_retries=0) as batcher:
        push(batcher)
        assert (await batcher.flush(timeout=0.1)).held == EVENTS
        assert batcher.statistics().last_error == "cannot connect (Connection refused)"
        async with server:
            assert await batcher.flush(timeout=10)
            assert sorted(server.taken) == [f"event-{number}" for number in range(EVENTS)]
            assert fates(batcher) == {"delivered": EVENTS}
            await batcher.aclose()


@pytest.mark.parametrize("on_ambiguous", ["retry", "drop"])
async def test_a_name_that_cannot_be_resolved_costs_nothing(
    on_ambiguous: OnAmbiguous, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups: list[str] = []
    getaddrinfo = socket.getaddrinfo

    def fail_once(host: Any, *args: Any, **options: Any) -> Any:
        lookups.append(host)
        if len(lookups) == 1:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return getaddrinfo("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", fail_once)
    async with RawServer() as server:
        url = f"http://honeyhive.invalid:{server.port}"
        batcher = Batcher(
            api_key="hh_test",
            base_url=url,
            on_ambiguous=on_ambiguous,
            max_retries=0,
            backoff_base=0.01,
            flush_interval=0,
        )
        async with batcher:
            push(batcher)
            assert (await batcher.flush(timeout=10)).ok
        assert lookups[:2] == ["honeyhive.invalid"] * 2
        assert batcher.statistics().last_error == "the host name cannot be resolved"
        assert len(server.taken) == EVENTS


@pytest.mark.parametrize("on_ambiguous", ["retry", "drop"])
async def test_a_name_server_that_never_answers_costs_nothing(
    on_ambiguous: OnAmbiguous, monkeypatch: pytest.MonkeyPatch
) -> None:
    import aiohttp.resolver  # noqa: PLC0415

    resolve = aiohttp.resolver.ThreadedResolver.resolve
    answers = asyncio.Event()

    async def hang(self: Any, host: str, *args: Any, **options: Any) -> Any:
        await answers.wait()
        return await resolve(self, host, *args, **options)

    monkeypatch.setattr(aiohttp.resolver.ThreadedResolver, "resolve", hang)
    async with (
        RawServer() as server,
        make_batcher(server, on_ambiguous=on_ambiguous, request_timeout=0.4) as batcher,
    ):
        push(batcher)
        assert (await batcher.flush(timeout=0.5)).held == EVENTS
        assert batcher.statistics().last_error == "connecting timed out"
        answers.set()
        assert await batcher.flush(timeout=10)
        assert len(server.taken) == EVENTS


@contextlib.contextmanager
def server_tls() -> Iterator[ssl.SSLContext]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / "self_signed_localhost.pem")
    yield context


@pytest.mark.parametrize("on_ambiguous", ["retry", "drop"])
@pytest.mark.parametrize("trouble", ["silence", "reset", "garbage"])
async def test_tls_that_does_not_stand_costs_nothing(trouble: str, on_ambiguous: OnAmbiguous) -> None:
    async def no_tls(connection: Connection) -> bool:
        await connection.reader.readexactly(1)
        match trouble:
            case "silence":
                await asyncio.Event().wait()
            case "reset":
                connection.reset()
            case _:
                await connection.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        return False

    with server_tls() as context:

        async def tls(connection: Connection) -> bool:
            await connection.writer.start_tls(context)
            return await good(connection)

        async with (
            RawServer(no_tls, tls, tls=context) as server,
            make_batcher(server, on_ambiguous=on_ambiguous, request_timeout=1.0, max_retries=0) as batcher,
        ):
            push(batcher)
            assert await batcher.flush(timeout=10)
            assert fates(batcher) == {"delivered": EVENTS}
            assert len(server.taken) == EVENTS
            if trouble == "silence":
                assert batcher.statistics().last_error == "connecting timed out"


# What the status tells, although the rest went wrong.


@pytest.mark.parametrize("on_ambiguous", ["retry", "drop"])
async def test_a_success_whose_body_breaks_off_is_a_success(on_ambiguous: OnAmbiguous) -> None:
    async def break_off(connection: Connection) -> bool:
        await connection.request()
        await connection.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"event_ids":["event-0"')
        return False

    async with RawServer(break_off) as server, make_batcher(server, on_ambiguous=on_ambiguous) as batcher:
        push(batcher)
        assert await batcher.flush(timeout=10)
        assert fates(batcher) == {"delivered": EVENTS}
        assert len(server.taken) == EVENTS


def too_large(*, then: Callable[[Connection], None]) -> Fault:
    async def answer_early(connection: Connection) -> bool:
        await connection.head()
        await connection.answer(413)
        then(connection)
        return False

    return answer_early


@pytest.mark.parametrize("on_ambiguous", ["retry", "drop"])
@pytest.mark.parametrize("then", [Connection.reset, lambda _: None], ids=["reset", "close"])
async def test_an_early_413_is_split_though_the_body_was_never_read(
    then: Callable[[Connection], None], on_ambiguous: OnAmbiguous
) -> None:
    async with (
        RawServer(too_large(then=then)) as server,
        make_batcher(server, on_ambiguous=on_ambiguous) as batcher,
    ):
        push(batcher)
        assert await batcher.flush(timeout=10)
        assert fates(batcher) == {"delivered": EVENTS}
        assert sorted(server.taken) == [f"event-{number}" for number in range(EVENTS)]
        assert len(server.bodies) == 2


# Closing in the midst of it.


@pytest.mark.parametrize("fault", named([hang_without_reading, hang_after_reading]))
async def test_closing_while_the_server_hangs_ends_in_time_and_lets_go_of_everything(fault: Fault) -> None:
    async with RawServer(*[fault] * 8) as server:
        batcher = make_batcher(server, max_batch_events=1, request_timeout=30.0)
        await batcher.start()
        push(batcher)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while len(server.heads) < EVENTS:  # noqa: ASYNC110 - they come over sockets
                await asyncio.sleep(0.005)
        began_at = loop.time()
        await batcher.aclose(timeout=0.2)
        assert 0.19 <= loop.time() - began_at < 0.45
        assert fates(batcher) == {"unconfirmed": EVENTS}
