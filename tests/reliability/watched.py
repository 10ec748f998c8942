"""The real transport with its doings noted, and what a batcher claims about each event."""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from msgspec import Struct

from honeyhive_batcher.config import Config
from honeyhive_batcher.core.model import Failure, Reply
from honeyhive_batcher.core.request import Request
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.runtime.transport import AiohttpTransport, Transport


class Exchange(Struct, frozen=True, kw_only=True):
    """One request that got its reply."""

    body: bytes
    reply: Reply
    seconds: float
    """From asking the transport to its reply."""


class Watched(Transport):
    """Sends over real sockets, and tells `note` of everything that was not cancelled."""

    def __init__(self, note: Callable[[Exchange], object]) -> None:
        self.under_way = 0
        self.most_under_way = 0
        self.cancelled = 0
        self.max_reply_bytes = 0
        self._note = note
        self.inner: AiohttpTransport

    def seams(self) -> Seams:
        """Return what a batcher takes to send over this."""
        return Seams(transport=self._over)

    def _over(self, config: Config) -> Transport:
        self.inner = AiohttpTransport(config.endpoint)
        return self

    async def open(self) -> None:
        await self.inner.open()

    async def send(self, request: Request) -> Reply:
        began_at = time.perf_counter()
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.max_reply_bytes = max(self.max_reply_bytes, request.max_reply_bytes)
        over = False
        try:
            reply = await self.inner.send(request)
            over = True
        finally:
            self.under_way -= 1
            self.cancelled += not over
        self._note(Exchange(body=request.body, reply=reply, seconds=time.perf_counter() - began_at))
        return reply

    async def close(self) -> None:
        await self.inner.close()


def is_ambiguous(reply: Reply) -> bool:
    """Whether nobody knows what the server has of a request: for a transport's failure."""
    return isinstance(reply, Failure) and not reply.unsent


class Claims:
    """What the callbacks said about each event."""

    def __init__(self) -> None:
        self.delivered: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.unconfirmed: Counter[str] = Counter()

    def hooks(self) -> dict[str, Any]:
        """Return the settings by which a batcher makes its claims here."""
        return {
            "on_delivered": self.delivered.update,
            "on_dropped": lambda event_ids, _: self.dropped.update(event_ids),
            "on_unconfirmed": self.unconfirmed.update,
        }

    def total(self) -> Counter[str]:
        """Return how many fates each event was said to have met."""
        return self.delivered + self.dropped + self.unconfirmed


@contextlib.contextmanager
def direct_network() -> Iterator[None]:
    """Keep the proxies of the machine's environment away."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with patch.dict(os.environ, kept, clear=True):
        yield


def open_files() -> int:
    """Return how many file descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def until(condition: Callable[[], object], *, within: float = 60.0) -> None:
    """Let the loop turn until `condition` holds.

    Raises:
        TimeoutError: It does not in so many seconds.
    """
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - it is about sockets, and they have no event for it
            await asyncio.sleep(0.001)
