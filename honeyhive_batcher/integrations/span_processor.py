"""What OpenTelemetry's tracer provider calls when spans begin and end."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, final

from honeyhive_batcher.claims import is_claimed
from honeyhive_batcher.integrations.calls import UnderWay, push_within
from honeyhive_batcher.integrations.failures import count_failure
from honeyhive_batcher.integrations.once import is_news, span_key
from honeyhive_batcher.integrations.spans import answer_id, model_event
from honeyhive_batcher.producer import Producer
from honeyhive_batcher.session import Session, current

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
else:
    SpanProcessor = object  # the SDK only calls it, and is not imported for it

_NAME = "the span processor"


@final
class _Open:
    """A span that has begun."""

    def __init__(self, span: Any, *, is_claimed: bool) -> None:
        self.span = span
        self.is_claimed = is_claimed
        self.sessions: tuple[Session, ...] = current.get()


@final
class HoneyHiveSpanProcessor(SpanProcessor):  # type: ignore[misc]  # Any here: optional
    """Tells `batcher` of every model call that has a span; other spans are left alone.

    It takes the spans of OpenTelemetry's and Traceloop's instrumentations, of OpenInference and of
    pydantic-ai. Of spans of one call inside each other, the outermost is told. A session that is bound where
    the span begins is the event's, unless the span names one in `session.id`; without either,
    `gen_ai.conversation.id` does. It never raises, and never waits but in `force_flush`. It neither starts
    nor closes the batcher.
    """

    def __init__(self, batcher: Producer) -> None:
        self._batcher = batcher
        self._open = UnderWay[_Open]()
        self._is_shut_down = False

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Note where a span begins."""
        try:
            if not self._is_shut_down:
                key = span.context.trace_id, span.context.span_id
                self._open.begin(key, _Open(span, is_claimed=is_claimed(self._batcher)))
        except Exception as error:  # a span of another shape than the SDK's
            count_failure(self._batcher, _NAME, error)

    def _on_ending(self, span: Any) -> None:
        """Do nothing: the SDK calls this before a span ends."""

    def on_end(self, span: Any) -> None:
        """Tell of a model call that has ended."""
        try:
            opened = self._open.end((span.context.trace_id, span.context.span_id))
            if self._is_shut_down or (opened is not None and opened.is_claimed):
                return
            attributes = dict(span.attributes or {})  # the SDK's mapping takes a lock for each look
            event = model_event(
                attributes, start_time=span.start_time, end_time=span.end_time, error=_error(span)
            )
            if event is None or self._is_inside_another(span):
                return
            failed = span_key(span.context) if "error" in event else None
            teller = id(self), getattr(span.instrumentation_scope, "name", None)
            if not is_news(self._batcher, answer_id(attributes, event) or failed, teller):
                return
            event["event_name"] = span.name
            sessions = current.get() if opened is None else opened.sessions
            metadata = event.setdefault("metadata", {})
            metadata["trace_id"] = format(span.context.trace_id, "032x")
            metadata["span_id"] = format(span.context.span_id, "016x")
            if sessions and event.get("session_id") == metadata.get("conversation_id"):
                # pydantic-ai makes one up for every run; what the program has bound says more.
                event.pop("session_id", None)
            push_within(self._batcher, event, sessions)
        except Exception as error:  # whatever a strange attribute raises when it is read
            count_failure(self._batcher, _NAME, error)

    def shutdown(self) -> None:
        """Take no more spans. The batcher runs on: whoever started it closes it."""
        self._is_shut_down = True

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have what was pushed delivered; return whether all of it was, within so many milliseconds.

        Where an event loop runs this does not wait, lest it stops the loop, and with it the delivery: it
        begins a flush there and returns whether nothing was held. Use `await batcher.flush()` there.
        """
        try:
            flush: Callable[..., Any] | None = getattr(self._batcher, "flush", None)
            if flush is None:
                return True
            return _flush(self._batcher, flush, timeout_millis / 1e3)
        except Exception as error:  # the tracer provider is the host's
            count_failure(self._batcher, _NAME, error)
            return False

    def _is_inside_another(self, span: Any) -> bool:
        """Return whether the span around this one is of a model call, too: then that one tells of it."""
        if span.parent is None:
            return False
        around = self._open.get((span.parent.trace_id, span.parent.span_id))
        return around is not None and model_event(around.span.attributes or {}) is not None


def _error(span: Any) -> str | None:
    """Return what went wrong, None if nothing did."""
    if span.status.status_code.name != "ERROR":
        return None
    if span.status.description:
        return str(span.status.description)
    for event in reversed(span.events):
        if event.name == "exception":
            told = event.attributes or {}
            return f"{told.get('exception.type')}: {told.get('exception.message')}"
    return ""


def _flush(batcher: Any, flush: Callable[..., Any], timeout: float) -> bool:
    if not inspect.iscoroutinefunction(flush):
        return bool(flush(timeout))  # a batcher with a thread of its own
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # none runs in this thread: it may wait
        return bool(asyncio.run(flush(timeout)))
    task = loop.create_task(_flushed(flush(timeout)), name="honeyhive_batcher.flush")
    _flushes.add(task)
    task.add_done_callback(_flushes.discard)
    return bool(batcher.statistics().held == 0)


_flushes: set[asyncio.Task[None]] = set()
"""Nobody else holds them."""


async def _flushed(flush: Coroutine[Any, Any, object]) -> None:
    await flush
