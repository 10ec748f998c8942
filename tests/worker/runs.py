"""One batcher for several runs, and the ways in which a run ends that nobody ended."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from honeyhive_batcher import Batcher
from honeyhive_batcher.runtime.seams import Seams
from tests.fakes import FakeTransport


class Runs:
    """A batcher made outside of any loop, as at module level, with a transport made for each run."""

    def __init__(self, *transports: FakeTransport, **settings: Any) -> None:
        self.transports = list(transports)
        self._waiting = list(transports)
        self.batcher = Batcher(
            api_key="hh_test", _seams=Seams(transport=lambda _config: self._waiting.pop(0)), **settings
        )

    @property
    def requests(self) -> list[int]:
        return [len(transport.sent) for transport in self.transports]


class SlowToOpen(FakeTransport):
    """Takes some turns of the loop to open."""

    async def open(self) -> None:
        await super().open()
        for _ in range(20):
            await asyncio.sleep(0)


def die(main: Coroutine[Any, Any, None]) -> None:
    """Run in a loop that is closed without ending its tasks, as some frameworks do."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it complains about the tasks, and rightly
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()
