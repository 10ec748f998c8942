"""What a batcher offers to the program that it lives in, made of its verbs. Imports no framework."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self

from honeyhive_batcher.core.model import Admission
from honeyhive_batcher.runtime.flush_result import FlushResult
from honeyhive_batcher.session import Session


class Embedded(ABC):
    """A batcher, as frameworks, clients and platforms see it."""

    @abstractmethod
    def push(self, event: object, *, session: Session | None = None) -> Admission:
        """See `Batcher.push`."""

    @abstractmethod
    async def flush(self, timeout: float | None = None) -> FlushResult:
        """See `Batcher.flush`."""

    @abstractmethod
    async def start(self) -> Self:
        """See `Batcher.start`."""

    @abstractmethod
    async def aclose(self, timeout: float | None = None) -> None:
        """See `Batcher.aclose`."""

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
