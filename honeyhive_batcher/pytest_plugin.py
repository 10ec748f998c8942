"""The pytest fixtures: `honeyhive_collector`, a local HoneyHive, and `honeyhive_events`, what was pushed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from honeyhive_batcher.captured import CapturedEvent
    from honeyhive_batcher.testing import Collector


@pytest.fixture
def honeyhive_collector() -> "Iterator[Collector]":
    """Run a local HoneyHive while the test runs: `Batcher(**honeyhive_collector.settings())`.

    It has a thread and an event loop of its own, so that synchronous tests can use it as well as
    asynchronous ones under any plugin. What it received: `honeyhive_collector.events()`.
    """
    # Here, not above: pytest loads every installed plugin at start, and this imports aiohttp.
    from honeyhive_batcher.testing import collector_in_thread  # noqa: PLC0415

    with collector_in_thread() as hive:
        yield hive


@pytest.fixture
def honeyhive_events() -> "Iterator[list[CapturedEvent]]":
    """Capture what the test pushes to any batcher: `honeyhive_events[0].model`. Nothing is sent.

    For synchronous and asynchronous tests, and batchers made before or never started; see
    `honeyhive_batcher.testing.capture`.
    """
    from honeyhive_batcher.captured import capture  # noqa: PLC0415 - as above; this one without aiohttp

    with capture() as events:
        yield events
