"""Test what you send: a local HoneyHive in the same process, on a random port.

In an asynchronous test or program::

    async with honeyhive_batcher.testing.collector() as hive:
        async with Batcher(**hive.settings()) as batcher:
            batcher.push(event)
        assert [stored.event["model"] for stored in hive.events()] == ["gpt-4o"]

In a synchronous one, `collector_in_thread`; under pytest, the fixture `honeyhive_collector`.

Without a server, `capture`: what is pushed to any batcher meanwhile. Under pytest, `honeyhive_events`.
"""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from honeyhive_batcher.captured import CapturedEvent, capture
from honeyhive_batcher.collector import (
    MAX_BODY_BYTES,
    Answer,
    Collector,
    Faults,
    RequestInfo,
    Settings,
    Stats,
    Step,
    StoredEvent,
    StoredRequest,
    StoredSession,
)

__all__ = [
    "MAX_BODY_BYTES",
    "Answer",
    "CapturedEvent",
    "Collector",
    "Faults",
    "RequestInfo",
    "Settings",
    "Stats",
    "Step",
    "StoredEvent",
    "StoredRequest",
    "StoredSession",
    "capture",
    "collector",
    "collector_in_thread",
]


@asynccontextmanager
async def collector(
    *,
    faults: Faults | None = None,
    api_key: str | None = None,
    db: str | Path = ":memory:",
    seed: int = 0,
) -> AsyncGenerator[Collector, None]:
    """Run a collector in this event loop, on a random port of 127.0.0.1.

    Args:
        faults: how to misbehave; also `hive.faults`, at any time.
        api_key: the only key accepted; None accepts any.
        db: path of a SQLite file, or ":memory:".
        seed: equal seeds give equal faults in an equal order of requests.

    Raises:
        ConfigError: `db` cannot be used.
    """
    async with Collector(faults=faults, api_key=api_key, db=db, seed=seed) as hive:
        yield hive


@contextmanager
def collector_in_thread(
    *,
    faults: Faults | None = None,
    api_key: str | None = None,
    db: str | Path = ":memory:",
    seed: int = 0,
) -> Generator[Collector, None, None]:
    """Run a collector in a thread with an event loop of its own; otherwise as `collector`.

    It goes on answering while the caller blocks, and works with any loop of the caller's, or none.

    Raises:
        ConfigError: `db` cannot be used.
    """
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            collector(faults=faults, api_key=api_key, db=db, seed=seed)
        ) as hive,
    ):
        yield hive
