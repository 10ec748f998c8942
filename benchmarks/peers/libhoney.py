"""Honeycomb's `libhoney`: a thread that batches and ten that send, JSON with gzip."""

from libhoney.client import Client
from libhoney.transmission import Transmission

from benchmarks.data import Event
from benchmarks.peers.contestant import Options
from benchmarks.peers.threaded import Threaded, silence


class Libhoney(Threaded):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        room = {} if options.queue is None else {"max_pending": options.queue}
        self._client = Client(
            writekey="bench", dataset="bench", api_host=options.url, transmission_impl=Transmission(**room)
        )

    def push(self, event: Event) -> None:
        self._client.new_event(event).send()

    async def settle(self) -> None:
        await silence(self.options.url)  # its flush closes, and takes ten seconds to
