"""The span processor with the real SDK and the real instrumentations."""
# ruff: noqa: PLC0415 - of the instrumentations each test imports one

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Status, StatusCode, use_span

from honeyhive_batcher import Batcher
from honeyhive_batcher.claims import claim
from honeyhive_batcher.integrations.once import is_news
from honeyhive_batcher.integrations.openai import instrument
from honeyhive_batcher.integrations.opentelemetry import HoneyHiveSpanProcessor
from honeyhive_batcher.testing import Collector, collector_in_thread
from tests.integrations.fake_provider import provider
from tests.integrations.kept import Kept
from tests.integrations.record_spans import FAMILIES, run

pytestmark = pytest.mark.anyio
CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "good"}


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def tracer(kept: Kept) -> Iterator[Any]:
    provider = TracerProvider()
    provider.add_span_processor(HoneyHiveSpanProcessor(kept))
    yield provider.get_tracer("test")
    provider.shutdown()


@pytest.mark.parametrize("family", FAMILIES)
def test_each_model_call_of_a_real_instrumentation_is_one_event(family: str) -> None:
    with collector_in_thread() as hive:
        spans = run(family, hive)
        stored = [each.event for each in hive.events()]
    calls = [
        span
        for span in spans
        if span["attributes"].get("gen_ai.operation.name") in ("chat", "text_completion")
        or span["attributes"].get("openinference.span.kind") == "LLM"
    ]
    assert len(stored) == len(calls) >= 5
    assert len({event["metadata"]["span_id"] for event in stored}) == len(calls)
    assert sum("error" in event for event in stored) == 1
    assert all(event["duration"] > 0 and event["project"] == "Spans" for event in stored)


def test_a_span_is_told_when_it_ends(tracer: Any, kept: Kept) -> None:
    span = tracer.start_span("chat good", attributes=CALL)
    assert kept.events == []
    span.set_attribute("gen_ai.response.id", "answer-1")
    span.end()
    (event,) = kept.events
    assert event["model"] == "good"
    assert event["metadata"] == {
        "response_id": "answer-1",
        "trace_id": format(span.context.trace_id, "032x"),
        "span_id": format(span.context.span_id, "016x"),
    }
    assert event["duration"] == pytest.approx(event["end_time"] - event["start_time"], abs=0.01)


def test_other_spans_are_left_alone(tracer: Any, kept: Kept) -> None:
    with tracer.start_as_current_span("GET /"), tracer.start_as_current_span("SELECT"):
        pass
    assert kept.events == []


@pytest.mark.parametrize(("description", "expected"), [("slow down", "slow down"), (None, "ValueError: no")])
def test_a_failed_span_has_an_error(tracer: Any, kept: Kept, description: str | None, expected: str) -> None:
    span = tracer.start_span("chat", attributes=CALL)
    span.add_event("first token")
    span.record_exception(ValueError("no"))
    span.add_event("retry")
    span.set_status(Status(StatusCode.ERROR, description))
    span.end()
    assert kept.events[0]["error"] == expected


def test_a_failed_span_that_says_nothing_has_an_error_all_the_same(tracer: Any, kept: Kept) -> None:
    span = tracer.start_span("chat", attributes=CALL)
    span.set_status(StatusCode.ERROR)
    span.end()
    assert kept.events[0]["error"] == "the call failed"


def test_of_spans_inside_each_other_the_outermost_is_told(tracer: Any, kept: Kept) -> None:
    with (
        tracer.start_as_current_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"}),
        tracer.start_as_current_span("outer", attributes={**CALL, "operation.cost": 0.5}),
        tracer.start_as_current_span("inner", attributes=CALL),
    ):
        pass
    (event,) = kept.events
    assert event["cost"] == 0.5


def test_an_answer_that_somebody_has_told_is_not_told_again(tracer: Any, kept: Kept) -> None:
    assert is_news(kept, "answer-2")
    tracer.start_span("chat", attributes={**CALL, "gen_ai.response.id": "answer-2"}).end()
    assert kept.events == []


def test_a_claimed_call_is_not_told(tracer: Any, kept: Kept) -> None:
    with claim(kept):
        span = tracer.start_span("chat", attributes=CALL)
    span.end()
    assert kept.events == []


def test_what_ends_before_it_began_for_us_is_told(kept: Kept) -> None:
    provider = TracerProvider()
    span = provider.get_tracer("test").start_span("chat", attributes=CALL)
    provider.add_span_processor(HoneyHiveSpanProcessor(kept))
    span.end()
    provider.shutdown()
    assert len(kept.events) == 1


def test_after_a_shutdown_nothing_is_told(kept: Kept) -> None:
    provider = TracerProvider()
    provider.add_span_processor(HoneyHiveSpanProcessor(kept))
    tracer = provider.get_tracer("test")
    before = tracer.start_span("chat", attributes=CALL)
    provider.shutdown()
    before.end()
    tracer.start_span("chat", attributes=CALL).end()
    assert kept.events == []


def test_a_strange_span_is_counted_and_hurts_nobody(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    processor = HoneyHiveSpanProcessor(kept)
    for _ in range(2):
        processor.on_start(SimpleNamespace())
        processor.on_end(SimpleNamespace())
    assert kept.events == [None] * 4
    assert len([record for record in caplog.records if "span processor" in record.message]) <= 1


class Stored:
    """What the collector has of a batcher."""

    def __init__(self, hive: Collector, on_delivered: Any = None) -> None:
        self.batcher = Batcher(**hive.settings(), flush_interval=600.0, on_delivered=on_delivered)
        self.provider = TracerProvider()
        self.processor = HoneyHiveSpanProcessor(self.batcher)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("test")


async def test_a_bound_session_is_that_of_its_beginning(honeyhive_collector: Collector) -> None:
    it = Stored(honeyhive_collector)
    made_up = {**CALL, "gen_ai.conversation.id": "made-up"}
    async with it.batcher:
        with it.batcher.session(session_name="Ask") as session:
            begun = it.tracer.start_span("chat", attributes={**made_up, "gen_ai.request.model": "bound"})
            named = it.tracer.start_span(
                "chat", attributes={**CALL, "session.id": "named", "gen_ai.request.model": "named"}
            )
        alone = it.tracer.start_span("chat", attributes={**made_up, "gen_ai.request.model": "alone"})
        for span in (begun, named, alone):
            span.end()
    found = {each.event["model"]: each.session_id for each in honeyhive_collector.events()}
    assert found == {"bound": session.session_id, "named": "named", "alone": "made-up"}


async def test_a_flush_in_a_thread_without_a_loop_waits_for_delivery(honeyhive_collector: Collector) -> None:
    it = Stored(honeyhive_collector)
    async with it.batcher:
        it.tracer.start_span("chat", attributes=CALL).end()
        assert await asyncio.to_thread(it.provider.force_flush, 20_000)
        assert len(honeyhive_collector.events()) == 1


async def test_a_flush_in_a_loop_does_not_wait(honeyhive_collector: Collector) -> None:
    delivered = asyncio.Event()
    it = Stored(honeyhive_collector, on_delivered=lambda _ids: delivered.set())
    async with it.batcher:
        assert it.processor.force_flush()
        it.tracer.start_span("chat", attributes=CALL).end()
        assert not it.processor.force_flush()
        await delivered.wait()  # long before the interval is over: it has begun a flush
        assert it.processor.force_flush()


def test_a_flush_of_a_batcher_that_blocks_is_what_it_says() -> None:
    class Blocking(Kept):
        def flush(self, timeout: float) -> bool:
            return timeout == 2.0

    assert HoneyHiveSpanProcessor(Blocking()).force_flush(2000)
    assert not HoneyHiveSpanProcessor(Blocking()).force_flush(1000)


def test_a_flush_of_what_cannot_flush_is_done(kept: Kept) -> None:
    assert HoneyHiveSpanProcessor(kept).force_flush()


def test_a_flush_that_raises_says_that_it_did_not(kept: Kept) -> None:
    class Broken(Kept):
        def flush(self, timeout: float) -> bool:
            raise OSError(timeout)

    broken = Broken()
    assert not HoneyHiveSpanProcessor(broken).force_flush()
    assert broken.events == [None]


def test_many_threads_tell_each_span_once(tracer: Any, kept: Kept) -> None:
    def work(number: int) -> None:
        for place in range(200):
            span = tracer.start_span("chat", attributes={**CALL, "gen_ai.response.id": f"{number}-{place}"})
            with use_span(span, end_on_exit=True):
                time.sleep(0)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept.events) == 800
    assert len({event["metadata"]["response_id"] for event in kept.events}) == 800


def instrumentor(family: str) -> Any:
    """Return what switches an instrumentation on and off."""
    if family == "genai":
        from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor as GenAI

        return GenAI()
    if family == "traceloop":
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor as Traceloop

        return Traceloop()
    from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference

    return OpenInference()


@pytest.fixture
def openai_as_it_was() -> Iterator[None]:
    """Give OpenAI's classes their own methods back: Traceloop does not, and other tests come after."""
    classes = [
        found
        for name, module in list(sys.modules.items())
        if name.startswith("openai.")
        for found in vars(module).values()
        if isinstance(found, type) and found.__module__.startswith("openai.")
    ]
    before = {found: dict(vars(found)) for found in classes}
    yield
    for found, own in before.items():
        for name, value in own.items():
            if vars(found).get(name) is not value:
                setattr(found, name, value)


@pytest.mark.usefixtures("openai_as_it_was")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Traceloop's, of pydantic
@pytest.mark.parametrize("family", ["genai", "traceloop", "openinference"])
async def test_a_call_that_a_client_tells_of_itself_is_not_told_again(family: str, kept: Kept) -> None:
    tracers = TracerProvider()
    tracers.add_span_processor(HoneyHiveSpanProcessor(kept))
    instrumentation = instrumentor(family)
    instrumentation.instrument(tracer_provider=tracers)
    try:
        async with (
            provider() as fake,
            openai.AsyncOpenAI(base_url=f"{fake.url}/v1", api_key="k", max_retries=0) as client,
        ):
            instrument(client, kept)
            messages: Any = [{"role": "user", "content": "hi"}]
            await client.chat.completions.create(model="good", messages=messages)
            for _ in range(2):
                with pytest.raises(openai.RateLimitError):
                    await client.chat.completions.create(model="fails-429", messages=messages)
    finally:
        instrumentation.uninstrument()
        tracers.shutdown()
    assert [event["event_name"] for event in kept.events] == ["chat.completions"] * 3
    assert ["error" in event for event in kept.events] == [False, True, True]
