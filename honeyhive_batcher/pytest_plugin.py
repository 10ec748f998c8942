"""The pytest fixture `honeyhive_collector`: a local HoneyHive for one test."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
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
