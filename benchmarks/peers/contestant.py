"""What every contestant can do, and where each of them is."""

import importlib
import importlib.util
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import msgspec

from benchmarks.data import Event


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a contestant is told."""

    url: str
    """Where the sink is."""
    queue: int | None = None
    """How many events it has to hold, where its own default would lose some; None for its default."""
    settings: dict[str, Any] = {}
    """Further settings of the batcher."""


class Contestant(Protocol):
    """Ships events. `give` may wait for room where its author offers that; `push` never waits."""

    async def start(self) -> None: ...

    @property
    def give(self) -> Callable[[Event], Awaitable[object]]: ...

    @property
    def push(self) -> Callable[[Event], object]: ...

    async def settle(self) -> None:
        """Return when everything taken has arrived or was given up."""

    async def stop(self) -> None: ...


class Entry(msgspec.Struct, frozen=True):
    """Where a contestant is, and the module without which there is none."""

    module: str
    name: str
    needs: str
    most_events: int | None = None
    """Most events in the throughput table, where more would only take long."""


_OURS = {
    "nothing": Entry("nothing", "Nothing", "msgspec"),
    "batcher": Entry("ours", "Ours", "honeyhive_batcher"),
}
HAND_WRITTEN = {
    "usual_loop": Entry("usual_loop", "UsualLoop", "aiohttp"),
    "orjson_loop": Entry("orjson_loop", "OrjsonLoop", "orjson"),
}
_LIMITS = {
    "encode_only": Entry("limits", "EncodeOnly", "msgspec"),
    "raw_client": Entry("limits", "RawClient", "msgspec"),
    "aiohttp_client": Entry("limits", "AiohttpClient", "aiohttp"),
    "promises_only": Entry("limits", "PromisesOnly", "aiohttp"),
}
VENDORS = {
    "libhoney": Entry("libhoney", "Libhoney", "libhoney"),
    "langsmith": Entry("langsmith", "Langsmith", "langsmith"),
    "honeyhive": Entry("honeyhive", "Honeyhive", "honeyhive", most_events=3_000),
    "otel_spans": Entry("otel", "OtelSpans", "opentelemetry.exporter.otlp.proto.http"),
    "otel_logs": Entry("otel", "OtelLogs", "opentelemetry.exporter.otlp.proto.http"),
    "langfuse": Entry("langfuse", "LangfuseGenerations", "langfuse"),
    "posthog": Entry("posthog", "PosthogEvents", "posthog"),
    "sentry": Entry("sentry", "SentryLogs", "sentry_sdk"),
    "segment": Entry("segment", "SegmentEvents", "segment"),
}
ALL = _OURS | HAND_WRITTEN | _LIMITS | VENDORS


def is_there(module: str) -> bool:
    """Return whether a module could be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it is in
        return False


def is_installed(name: str) -> bool:
    """Return whether what a contestant needs is there."""
    return is_there(ALL[name].needs)


def installed(names: Iterable[str]) -> list[str]:
    """Return those that can take part."""
    return [name for name in names if is_installed(name)]


def make(name: str, options: Options) -> Contestant:
    """Return a contestant; only now is what it needs imported."""
    entry = ALL[name]
    made: Contestant = getattr(importlib.import_module(f"benchmarks.peers.{entry.module}"), entry.name)(
        options
    )
    return made
