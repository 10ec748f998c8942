"""What the exporters with threads of their own have in common: a call that does not wait, and a flush."""

import asyncio
import json

from benchmarks import sink
from benchmarks.data import Event
from benchmarks.peers.contestant import Options

PATIENCE = 300.0
"""Seconds that a flush may take."""
_SILENCE = 1.5


class Threaded:
    """`push` and `flush` are the exporter's; nobody is offered to wait for room."""

    def __init__(self, options: Options) -> None:
        self.options = options

    async def start(self) -> None:
        pass

    def push(self, event: Event) -> None:
        raise NotImplementedError  # each exporter has its own

    def flush(self) -> None:
        raise NotImplementedError  # each exporter has its own

    async def give(self, event: Event) -> None:
        self.push(event)

    async def settle(self) -> None:
        await asyncio.to_thread(self.flush)

    async def stop(self) -> None:
        """The process ends anyway, and some take ten seconds to close."""


async def silence(url: str) -> None:
    """Return when nothing has come to the sink for a while: for those whose flush does not tell."""
    loop = asyncio.get_running_loop()
    seen, since = -1, loop.time()
    while loop.time() - since < _SILENCE:
        await asyncio.sleep(0.1)
        now = await asyncio.to_thread(sink.progress, url)
        if now != seen:
            seen, since = now, loop.time()


def flat(event: Event) -> dict[str, str | bool | int | float]:
    """Return an event as the attributes of a span or a log line: what is nested becomes JSON text."""
    return {
        name: value if isinstance(value, str | bool | int | float) else json.dumps(value)
        for name, value in event.items()
        if value is not None
    }
