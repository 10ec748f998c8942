"""Everything here runs in virtual time, and leaves nothing behind."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.virtual_time import VirtualTimeLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
async def nothing_leaks(anyio_backend: object) -> AsyncIterator[None]:
    """Fail a test that leaves a task behind, or something that the loop complains about."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
    assert [task for task in asyncio.all_tasks() if "TestRunner" not in repr(task.get_coro())] == []
