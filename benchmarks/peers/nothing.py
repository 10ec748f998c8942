"""Takes events and throws them away: what the harness and making the events cost."""

from benchmarks.data import Event
from benchmarks.peers.contestant import Options


class Nothing:
    def __init__(self, _options: Options) -> None:
        pass

    async def start(self) -> None:
        pass

    async def give(self, event: Event) -> None:
        pass

    def push(self, event: Event) -> None:
        pass

    async def settle(self) -> None:
        pass

    async def stop(self) -> None:
        pass
