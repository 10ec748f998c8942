"""What both loops written by hand have in common: a bounded queue, and tasks that send from it."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from benchmarks.data import Event
from benchmarks.peers.contestant import Options

BATCH = 100
_HEADERS = {"Authorization": "Bearer hh_bench", "Content-Type": "application/json"}
_QUEUE = 10_000
"""As the batcher's; whoever gives more waits for room, so that it need not hold all."""


class Loop:
    """A queue, and as many senders as asked for. It does not retry and keeps no count of what it lost."""

    def __init__(self, options: Options, senders: int) -> None:
        self.url = options.url + "/events/model/batch"
        self.queue: asyncio.Queue[Event] = asyncio.Queue(_QUEUE)
        self.give = self.queue.put
        self._senders = senders

    def push(self, event: Event) -> None:
        if not self.queue.full():
            self.queue.put_nowait(event)

    async def begin(self, send: Callable[[aiohttp.ClientSession], Awaitable[None]]) -> None:
        self._session = aiohttp.ClientSession(headers=_HEADERS)
        self._tasks = [asyncio.ensure_future(send(self._session)) for _ in range(self._senders)]

    async def settle(self) -> None:
        await self.queue.join()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()
