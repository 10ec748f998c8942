"""The batcher, with its default settings unless told otherwise."""

from benchmarks.peers.contestant import Options
from honeyhive_batcher import Batcher


class Ours:
    def __init__(self, options: Options) -> None:
        self.batcher = Batcher(**{"api_key": "hh_bench", "base_url": options.url} | options.settings)
        self.give = self.batcher.put
        self.push = self.batcher.push

    async def start(self) -> None:
        await self.batcher.start()

    async def settle(self) -> None:
        await self.batcher.flush()

    async def stop(self) -> None:
        await self.batcher.aclose()
