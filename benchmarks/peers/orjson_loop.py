"""The best one would write by hand, without any guarantee: four senders, orjson, no waiting per event."""

import aiohttp
import orjson

from benchmarks.peers.contestant import Options
from benchmarks.peers.loop import BATCH, Loop


class OrjsonLoop(Loop):
    def __init__(self, options: Options) -> None:
        super().__init__(options, senders=4)

    async def start(self) -> None:
        await self.begin(self._send)

    async def _send(self, session: aiohttp.ClientSession) -> None:
        while True:
            events = [await self.queue.get()]
            while len(events) < BATCH and not self.queue.empty():
                events.append(self.queue.get_nowait())
            async with session.post(self.url, data=orjson.dumps({"model_events": events})) as answer:
                await answer.read()
            for _ in events:
                self.queue.task_done()
