"""PostHog's client: a thread that sends bodies of up to a hundred events."""

from posthog import Posthog

from benchmarks.data import Event
from benchmarks.peers.contestant import Options
from benchmarks.peers.threaded import Threaded


class PosthogEvents(Threaded):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        room = {} if options.queue is None else {"max_queue_size": options.queue}
        self._client = Posthog("phc_bench", host=options.url, **room)

    def push(self, event: Event) -> None:
        self._client.capture(event["event_name"], distinct_id="somebody", properties=event)

    def flush(self) -> None:
        self._client.flush()
