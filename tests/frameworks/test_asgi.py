"""`batcher.asgi`: the lifespan as servers and applications of every kind see it, and sessions of requests."""

import asyncio
import contextlib
import logging
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import anyio.to_thread
import pytest

from honeyhive_batcher import Batcher, ConfigError, Session, SessionProperties
from honeyhive_batcher.asgi import Asgi, Message, Receive, Scope, Send
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.session import current
from tests.fakes import FakeTransport

EVENT = {"model_name": "gpt-4o"}

App = Callable[[Scope, Receive, Send], Awaitable[Any]]
pytestmark = pytest.mark.anyio


class Served:
    """A batcher around an application, and a server that drives its lifespan by hand."""

    def __init__(self, app: App, **options: Any) -> None:
        self.transport = FakeTransport()
        self.batcher = Batcher(
            api_key="hh_test", flush_interval=60.0, _seams=Seams(transport=lambda _config: self.transport)
        )
        self.app = self.batcher.asgi(app, **options)
        self.state: dict[str, Any] | None = {}
        self.sent: list[Message] = []
        self.said = asyncio.Event()
        self.inbox = asyncio.Queue[Message]()

    async def send(self, message: Message) -> None:
        if message["type"] in ("lifespan.startup.complete", "lifespan.startup.failed"):
            self.was_open_at_startup = self.is_open
        else:
            self.was_open_at_shutdown = self.is_open
        self.sent.append(message)
        self.said.set()

    @property
    def is_open(self) -> bool:
        return repr(self.batcher).startswith("<Batcher open")

    @property
    def types(self) -> list[str]:
        return [message["type"].removeprefix("lifespan.") for message in self.sent]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the lifespan as a server does, with a shutdown only after a startup that succeeded."""
        scope: Scope = {"type": "lifespan"} | ({} if self.state is None else {"state": self.state})
        task = asyncio.create_task(self.app(scope, self.inbox.get, self.send))
        self.task = task
        await self.inbox.put({"type": "lifespan.startup"})
        await asyncio.wait({task, asyncio.ensure_future(self.said.wait())}, return_when="FIRST_COMPLETED")
        self.said.set()
        yield
        if self.types == ["startup.complete"]:
            await self.inbox.put({"type": "lifespan.shutdown"})
        await task

    async def request(self, kind: str = "http", **headers: str) -> None:
        raw = [(key.replace("_", "-").encode(), value.encode("latin-1")) for key, value in headers.items()]
        await self.app({"type": kind, "path": "/", "headers": raw}, self.inbox.get, self.send)


def pushing(served: list[Served]) -> App:
    """Return an application without a lifespan, like Django, that pushes in every request."""

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        if scope["type"] == "lifespan":
            raise ValueError("only HTTP")
        served[0].batcher.push(EVENT)

    return app


def serve_pushing(**options: Any) -> Served:
    holder = list[Served]()
    holder.append(Served(pushing(holder), **options))
    return holder[0]


async def returns(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Know nothing of lifespans."""


async def asks_and_returns(_scope: Scope, receive: Receive, _send: Send) -> None:
    await receive()


async def test_an_application_that_refuses_the_lifespan_is_answered_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    served = serve_pushing()
    async with served.running():
        assert served.is_open
        assert served.state == {"batcher": served.batcher}
        await served.request()
        assert served.batcher.statistics().held == 1
    assert served.types == ["startup.complete", "shutdown.complete"]
    assert served.was_open_at_startup
    assert not served.was_open_at_shutdown  # all is delivered before the server hears that it may end
    assert len(served.transport.sent) == 1
    assert caplog.records == []


@pytest.mark.parametrize("app", [returns, asks_and_returns])
async def test_an_application_that_does_not_answer_is_answered_for(app: App) -> None:
    served = Served(app)
    served.state = None  # not every server has one
    async with served.running():
        assert served.is_open
    assert served.types == ["startup.complete", "shutdown.complete"]
    assert not served.was_open_at_shutdown


async def test_an_application_with_a_lifespan_has_it_inside_that_of_the_batcher() -> None:
    told = list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["state"]["batcher"] is served.batcher
        told.append((await receive())["type"])
        assert served.batcher.push(EVENT)
        await send({"type": "lifespan.startup.complete"})
        told.append((await receive())["type"])
        assert served.batcher.push(EVENT)
        await send({"type": "lifespan.shutdown.complete"})

    served = Served(app)
    async with served.running():
        pass
    assert told == ["lifespan.startup", "lifespan.shutdown"]
    assert served.types == ["startup.complete", "shutdown.complete"]
    assert served.batcher.statistics().delivered == 2


async def test_a_startup_that_fails_is_passed_on() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise ConnectionError("no database")  # as Starlette does

    served = Served(app)
    with pytest.raises(ConnectionError):
        async with served.running():
            pass
    assert served.sent == [{"type": "lifespan.startup.failed", "message": "no database"}]
    assert not served.is_open


async def test_a_shutdown_that_fails_is_passed_on() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "cannot"})

    served = Served(app)
    async with served.running():
        pass
    assert served.types == ["startup.complete", "shutdown.failed"]
    assert not served.is_open


@pytest.mark.parametrize("is_up", [False, True])
async def test_a_lifespan_that_breaks_without_a_word_is_told_of(
    is_up: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> NoReturn:
        await receive()
        if is_up:
            await send({"type": "lifespan.startup.complete"})
        raise KeyError("broken")

    served = Served(app)
    async with served.running():
        await asyncio.sleep(0)
        assert served.is_open  # requests are served, and push
    assert served.types == ["startup.complete", "shutdown.complete"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


async def test_an_application_that_ends_at_the_shutdown_without_a_word_is_answered_for() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()

    served = Served(app)
    async with served.running():
        pass
    assert served.types == ["startup.complete", "shutdown.complete"]


async def test_a_server_that_cancels_the_lifespan_leaves_nothing_behind() -> None:
    served = serve_pushing()

    async def serve() -> None:
        async with served.running():
            await served.request()
            served.task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await serve()
    assert not served.is_open
    assert len(served.transport.sent) == 1


async def test_a_start_that_fails_is_reported_to_the_server() -> None:
    served = Served(returns)
    other = threading.Thread(target=asyncio.run, args=(_run_elsewhere(served.batcher),))
    _is_up.clear()
    _is_over.clear()
    other.start()
    await anyio.to_thread.run_sync(_is_up.wait)
    async with served.running():
        pass
    _is_over.set()
    await anyio.to_thread.run_sync(other.join)
    assert served.types == ["startup.failed"]
    assert "another event loop" in served.sent[0]["message"]


_is_up, _is_over = threading.Event(), threading.Event()


async def _run_elsewhere(batcher: Batcher) -> None:
    async with batcher:
        _is_up.set()
        await asyncio.to_thread(_is_over.wait)


async def test_without_a_lifespan_requests_pass_and_one_line_tells(caplog: pytest.LogCaptureFixture) -> None:
    served = serve_pushing()
    for _ in range(3):
        await asyncio.create_task(served.request())
    assert len(caplog.records) == 1
    assert "the batcher was not started" in caplog.text
    assert served.batcher.statistics().held == 3
    await served.batcher.aclose()


# Sessions.


@pytest.fixture
def bound() -> list[Session]:
    return []


def watching(bound: list[Session]) -> App:
    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        bound.extend(current.get())

    return app


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_header_names_the_session(kind: str, bound: list[Session]) -> None:
    served = Served(watching(bound), session="X-Session-Id")
    await served.request(kind, x_session_id=" s-1 ")
    await served.request(kind, other="s-2")
    await served.request(kind, x_session_id="")
    await served.request(kind, x_session_id="s" * 257)
    await served.request(kind, x_session_id="s\x00")
    assert [session.session_id for session in bound] == ["s-1"]
    assert current.get() == ()


@pytest.mark.parametrize(
    "named", ["s-1", {"session_id": "s-1"}, SessionProperties(session_id="s-1"), None, "", {}]
)
async def test_a_function_names_it_or_gives_its_properties(named: Any, bound: list[Session]) -> None:
    served = Served(watching(bound), session=lambda scope: named if scope["path"] == "/" else "other")
    await served.request()
    assert [session.session_id for session in bound] == (["s-1"] if named else [])


async def test_a_function_that_fails_costs_the_session_only(
    bound: list[Session], caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_scope: Scope) -> NoReturn:
        raise KeyError("secret")

    served = Served(watching(bound), session=fails)
    for _ in range(3):
        await served.request()
    assert bound == []
    assert [record.message for record in caplog.records] == [
        "no session for a request: asked for it, KeyError was raised"
    ]


async def test_events_of_a_request_belong_to_its_session_and_its_exceptions_pass() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> NoReturn:
        await anyio.to_thread.run_sync(served.batcher.push, EVENT)
        raise ValueError("the application's own")

    served = Served(app, session="x-session-id")
    async with served.batcher:
        with pytest.raises(ValueError, match="own"):
            await served.request(x_session_id="s-1")
    body = served.transport.sent[0].request.body
    assert b'"session_id":"s-1"' in body
    assert current.get() == ()


async def test_other_kinds_of_connections_pass() -> None:
    kinds = list[str]()

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        kinds.append(scope["type"])

    await Served(app, session="x").request("webtransport")
    assert kinds == ["webtransport"]


async def _asks(_scope: Scope) -> None: ...


@pytest.mark.parametrize(
    ("app", "options"), [("app", {}), (returns, {"session": 7}), (returns, {"session": _asks})]
)
async def test_what_cannot_work_is_said_at_once(app: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Batcher(api_key="hh_test").asgi(app, **options)


async def test_it_may_be_put_around_itself(bound: list[Session]) -> None:
    served = Served(watching(bound))
    outer = served.batcher.asgi(served.app, session="x-session-id")
    assert isinstance(outer, Asgi)
    served.app = outer
    async with served.running():
        await served.request(x_session_id="s-1")
    assert served.types == ["startup.complete", "shutdown.complete"]
    assert [session.session_id for session in bound] == ["s-1"]


# Frameworks.


async def test_a_test_client_that_runs_no_lifespan_gets_its_answers_and_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from fastapi import FastAPI  # noqa: PLC0415 - only here

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which client it is made of is its own affair
        from starlette.testclient import TestClient  # noqa: PLC0415 - only here

    batcher = Batcher(api_key="hh_test", test_mode=True)
    app = FastAPI(lifespan=batcher.lifespan)

    @app.get("/")
    async def answer() -> str:
        batcher.push(EVENT)
        return "Honey."

    def ask() -> None:
        client = TestClient(app)
        assert [client.get("/").json() for _ in range(3)] == ["Honey."] * 3
        assert [record.name for record in caplog.records] == ["honeyhive_batcher"]
        with TestClient(app) as started:
            assert started.get("/").json() == "Honey."

    with caplog.at_level(logging.WARNING, "honeyhive_batcher"):
        await anyio.to_thread.run_sync(ask)
    assert batcher.statistics().delivered == 4
    assert len(caplog.records) == 1


async def test_it_goes_into_a_lifespan_that_the_application_has() -> None:
    from fastapi import FastAPI  # noqa: PLC0415 - only here

    told = list[str]()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with batcher.lifespan(app) as state:
            told.append("up")
            yield {**state, "database": "mine"}
            assert batcher.push(EVENT)
            told.append("down")

    batcher = Batcher(api_key="hh_test", test_mode=True)
    app = FastAPI(lifespan=lifespan)
    async with app.router.lifespan_context(app) as state:
        assert state == {"batcher": batcher, "database": "mine"}
    assert told == ["up", "down"]
    assert batcher.statistics().delivered == 1
