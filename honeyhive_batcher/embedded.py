"""What a batcher offers to the program that it lives in, made of its verbs. Imports no framework."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Self

from honeyhive_batcher.asgi import App, Asgi, SessionOf
from honeyhive_batcher.events import SessionProperties
from honeyhive_batcher.model_call import TimesCalls
from honeyhive_batcher.runtime.flush_result import FlushResult
from honeyhive_batcher.session import Session


class Embedded(TimesCalls, ABC):
    """A batcher, as frameworks, clients and platforms see it."""

    @abstractmethod
    async def flush(self, timeout: float | None = None) -> FlushResult:
        """See `Batcher.flush`."""

    @abstractmethod
    async def start(self) -> Self:
        """See `Batcher.start`."""

    @abstractmethod
    async def aclose(self, timeout: float | None = None) -> None:
        """See `Batcher.aclose`."""

    @abstractmethod
    def session(
        self, properties: SessionProperties | Mapping[str, Any] | None = None, /, **more: Any
    ) -> Session:
        """See `Batcher.session`."""

    @abstractmethod
    def invocation(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[None]:
        """See `Batcher.invocation`."""

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()

    @asynccontextmanager
    async def lifespan(self, _app: Any = None) -> AsyncGenerator[dict[str, Any], None]:
        """Run as long as an application does: `FastAPI(lifespan=batcher.lifespan)`.

        For Starlette, FastAPI and Litestar (`lifespan=[batcher.lifespan]`). Handlers find the batcher in
        `request.state.batcher`. In a lifespan of your own: `async with batcher: yield`.
        """
        async with self:
            yield {"batcher": self}

    async def cleanup_ctx(self, _app: Any = None) -> AsyncGenerator[None, None]:
        """Run as long as an aiohttp.web application does: `app.cleanup_ctx.append(batcher.cleanup_ctx)`."""
        async with self:
            yield

    def asgi(self, app: App, *, session: str | SessionOf | None = None) -> Asgi:
        """Return an ASGI application that serves `app`, and runs the batcher as long as the server does.

        For Django (`application = batcher.asgi(get_asgi_application())`) and any other: the lifespan goes on
        to `app` and is answered for it where it will not. With `session` each request, and each websocket,
        is a session: it names the header that holds the session's id, or is called with the ASGI scope and
        returns an id, properties of a session, or None for none. A server that does not do lifespans starts
        nothing: then events are held, within the bounds.

        Raises:
            ConfigError: `app` cannot be called, or `session` is neither a name nor a plain function.
        """
        return Asgi(app, self, session)
