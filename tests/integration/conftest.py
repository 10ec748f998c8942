"""Everything here uses real sockets on loopback, in real time, and leaves nothing behind."""

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parent.parent / "data"


async def eventually(condition: Callable[[], object], *, within: float = 5.0) -> None:
    """Let the loop turn until `condition` holds; fail when it does not in time."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0.001)


def open_sockets() -> set[str]:
    """Return the open sockets of this process; none where they cannot be listed."""
    links: set[str] = set()
    with contextlib.suppress(FileNotFoundError):
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed just now
                links.add(str(entry.readlink()))
    return {link for link in links if link.startswith("socket:")}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the machine's environment says away."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
async def nothing_leaks(anyio_backend: object) -> AsyncIterator[None]:
    """Fail a test that leaves a task or a socket behind, or something that the loop complains about."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = open_sockets()
    yield
    gc.collect()
    await eventually(lambda: open_sockets() <= before)
    await eventually(lambda: not _others())
    assert complaints == []


def _others() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if "TestRunner" not in repr(task.get_coro())]
