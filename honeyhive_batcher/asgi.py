"""Around any ASGI application: the batcher runs as long as it does, and a session as long as a request.

Frameworks that have a lifespan need this only for its sessions. Others, like Django, refuse the lifespan
protocol: here it is answered for them.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias, final

from honeyhive_batcher.errors import ConfigError
from honeyhive_batcher.events import SessionProperties
from honeyhive_batcher.runtime.reporter import say
from honeyhive_batcher.session import Session

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[Any]]
SessionOf: TypeAlias = Callable[[Scope], str | SessionProperties | Mapping[str, Any] | None]

_LONGEST_ID = 256
"""Characters: a longer one in a header is no id of anybody's, and would travel with every event."""


class Runs(Protocol):
    """What this needs of a batcher."""

    async def start(self) -> Any:
        """See `Batcher.start`."""

    async def aclose(self, timeout: float | None = None) -> None:
        """See `Batcher.aclose`."""

    def session(
        self, properties: SessionProperties | Mapping[str, Any] | None = None, /, **more: Any
    ) -> Session:
        """See `Batcher.session`."""
        ...


@final
class Asgi:
    """An ASGI application around another one; see `Batcher.asgi`."""

    def __init__(self, app: App, batcher: Runs, session: str | SessionOf | None) -> None:
        if not callable(app):
            raise ConfigError("app is not an ASGI application: it cannot be called")
        if not (session is None or isinstance(session, str) or callable(session)):
            raise ConfigError("session is neither the name of a header nor callable")
        if inspect.iscoroutinefunction(session):
            raise ConfigError("session is called, not awaited: it has to be a plain function")
        self._app = app
        self._batcher = batcher
        self._session = _header(session) if isinstance(session, str) else session
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif self._session is None or scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        else:
            with self._bound(self._session, scope):
                await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._batcher.start()
        except Exception as error:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        try:
            await _Lifespan(self._app, self._batcher, receive, send).run(scope)
        finally:
            await self._batcher.aclose()

    def _bound(self, session_of: SessionOf, scope: Scope) -> AbstractContextManager[object]:
        """Return the session of a request; none if it has none, or there is something wrong with it."""
        try:
            named = session_of(scope)
            if not named:
                return nullcontext()
            session = self._batcher.session(session_id=named) if isinstance(named, str) else None
            return session or self._batcher.session(named)  # type: ignore[arg-type] # str was handled
        except Exception as error:  # the request is served, with or without a session
            if not self._has_warned:
                self._has_warned = True
                say(
                    logging.WARNING,
                    "no session for a request: asked for it, %s was raised",
                    type(error).__name__,
                    kind="session_not_found",
                    raised=type(error).__name__,
                )
            return nullcontext()


@final
class _Lifespan:
    """One lifespan: passed on to the application, and answered for it as far as it does not."""

    def __init__(self, app: App, batcher: Runs, receive: Receive, send: Send) -> None:
        self._app = app
        self._batcher = batcher
        self._receive_from_server = receive
        self._send_to_server = send
        self._received: str = ""
        self._sent: str = ""

    async def run(self, scope: Scope) -> None:
        if isinstance(state := scope.get("state"), MutableMapping):
            state["batcher"] = self._batcher  # `request.state.batcher`
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:
            if self._sent in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
                raise  # it has said so, and now it says why
            self._tell(error)
        # From here on the application will not answer any more.
        if not self._sent:
            if not self._received:
                await self._receive()
            await self._send({"type": "lifespan.startup.complete"})
        if self._sent == "lifespan.startup.complete":
            if self._received != "lifespan.shutdown":
                await self._receive()
            await self._send({"type": "lifespan.shutdown.complete"})

    async def _receive(self) -> Message:
        message = await self._receive_from_server()
        self._received = message["type"]
        return message

    async def _send(self, message: Message) -> None:
        self._sent = message["type"]
        if self._sent != "lifespan.startup.complete":
            # It is over, and the server may end the process as soon as it hears of that.
            await self._batcher.aclose()
        await self._send_to_server(message)

    def _tell(self, error: Exception) -> None:
        """Log an exception that the server would have been told of; the way in which Django and others say
        that they have no lifespan is none.
        """
        if self._received:
            text = "the application's lifespan ended with an exception"
            say(logging.ERROR, text, kind="lifespan_failed", raised=type(error).__name__, error=error)


def _header(name: str) -> SessionOf:
    """Return what finds the id of a session in a header of this name."""
    wanted = name.lower().encode("latin-1", "replace")

    def session_id(scope: Scope) -> str | None:
        found = next((bytes(value) for key, value in scope["headers"] if bytes(key).lower() == wanted), b"")
        text = found.decode("latin-1").strip()
        return text if len(text) <= _LONGEST_ID and text.isprintable() else None

    return session_id
