"""What most people write: `wait_for` around `queue.get`, and `post(json=...)`."""

import asyncio
import contextlib

import aiohttp

from benchmarks.peers.contestant import Options
from benchmarks.peers.loop import BATCH, Loop


class UsualLoop(Loop):
    def __init__(self, options: Options) -> None:
        super().__init__(options, senders=1)

    async def start(self) -> None:
        await self.begin(self._send)

    async def _send(self, session: aiohttp.ClientSession) -> None:
        while True:
            events = [await self.queue.get()]
            with contextlib.suppress(TimeoutError):
                while len(events) < BATCH:
                    events.append(await asyncio.wait_for(self.queue.get(), 0.1))
            async with session.post(self.url, json={"model_events": events}) as answer:
                await answer.read()
            for _ in events:
                self.queue.task_done()
