"""HoneyHive's own client, generated from its OpenAPI: a request for each hundred events, from a queue."""

import asyncio

from honeyhive._generated.api_config import APIConfig
from honeyhive._generated.models import ModelEvent, PostModelEventBatchRequest
from honeyhive._generated.services.async_Events_service import createModelEventBatchLegacy

from benchmarks.data import Event
from benchmarks.peers.contestant import Options

_BATCH = 100
_QUEUE = 10_000


class Honeyhive:
    def __init__(self, options: Options) -> None:
        self._config = APIConfig(base_path=options.url, access_token="hh_bench")
        self._queue: asyncio.Queue[Event] = asyncio.Queue(_QUEUE)
        self.give = self._queue.put

    async def start(self) -> None:
        self._task = asyncio.ensure_future(self._send())

    def push(self, event: Event) -> None:
        if not self._queue.full():
            self._queue.put_nowait(event)

    async def _send(self) -> None:
        while True:
            events = [await self._queue.get()]
            while len(events) < _BATCH and not self._queue.empty():
                events.append(self._queue.get_nowait())
            request = PostModelEventBatchRequest(model_events=[ModelEvent(**event) for event in events])
            await createModelEventBatchLegacy(self._config, data=request)
            for _ in events:
                self._queue.task_done()

    async def settle(self) -> None:
        await self._queue.join()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
