"""LangSmith's client: encodes and compresses in the caller, sends multipart bodies from a thread."""

import datetime as dt
import uuid

from langsmith import Client

from benchmarks.data import Event
from benchmarks.peers.contestant import Options
from benchmarks.peers.threaded import Threaded


class Langsmith(Threaded):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._client = Client(api_url=options.url, api_key="bench")

    def push(self, event: Event) -> None:
        run, now = uuid.uuid4(), dt.datetime.now(dt.UTC)
        self._client.create_run(
            event["event_name"],
            inputs={"messages": event["messages"], "tools": event["tools"]},
            run_type="llm",
            project_name=event["project"],
            id=run,
            trace_id=run,
            dotted_order=f"{now:%Y%m%dT%H%M%S%fZ}{run}",
            start_time=now,
            end_time=now,
            outputs={"response": event["response"], "usage": event["usage"]},
            extra={"metadata": {name: event[name] for name in event if name not in _ELSEWHERE}},
        )

    def flush(self) -> None:
        self._client.flush()


_ELSEWHERE = {"event_name", "messages", "tools", "project", "response", "usage"}
