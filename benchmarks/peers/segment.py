"""Segment's client: a thread that sends bodies of up to a hundred events."""

from segment.analytics.client import Client

from benchmarks.data import Event
from benchmarks.peers.contestant import Options
from benchmarks.peers.threaded import Threaded


class SegmentEvents(Threaded):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        room = {} if options.queue is None else {"max_queue_size": options.queue}
        self._client = Client("bench", host=options.url, **room)

    def push(self, event: Event) -> None:
        self._client.track("somebody", event["event_name"], properties=event)

    def flush(self) -> None:
        self._client.flush()
