"""Langfuse's client: a generation for each event, over OpenTelemetry's span processor."""

import os

from langfuse import Langfuse

from benchmarks.data import Event
from benchmarks.peers.contestant import Options
from benchmarks.peers.threaded import Threaded


class LangfuseGenerations(Threaded):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        if options.queue is not None:
            os.environ["OTEL_BSP_MAX_QUEUE_SIZE"] = str(options.queue)
        self._client = Langfuse(public_key="pk-lf-bench", secret_key="sk-lf-bench", base_url=options.url)

    def push(self, event: Event) -> None:
        self._client.start_observation(
            name=event["event_name"],
            as_type="generation",
            model=event["model"],
            input=event["messages"],
            output=event["response"],
            usage_details={name: count for name, count in event["usage"].items() if name != "total_tokens"},
            metadata={name: event[name] for name in event if name not in _ELSEWHERE},
        ).end()

    def flush(self) -> None:
        self._client.flush()


_ELSEWHERE = {"event_name", "model", "messages", "response", "usage"}
