"""The handler with the real LangChain and LangGraph."""

import asyncio
import gc
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import openai
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI, OpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from honeyhive_batcher import Batcher
from honeyhive_batcher.claims import claim
from honeyhive_batcher.integrations import calls, langchain
from honeyhive_batcher.integrations.langchain import callback, instrument
from honeyhive_batcher.integrations.langchain_runs import Runs
from honeyhive_batcher.integrations.once import is_news
from honeyhive_batcher.integrations.openai import instrument as instrument_client
from honeyhive_batcher.integrations.opentelemetry import HoneyHiveSpanProcessor
from honeyhive_batcher.testing import Collector
from tests.integrations import fake_answers, fake_provider
from tests.integrations.fake_provider import FakeProvider, provider_in_thread
from tests.integrations.kept import Kept

pytestmark = pytest.mark.anyio
TEXT = "Bees make honey in a hive."
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 7,
    "total_tokens": 19,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with provider_in_thread() as fake:
        yield fake


@pytest.fixture
def kept() -> Kept:
    return Kept()


class Models:
    """Real models that share two clients: LangChain's own outlive their event loop."""

    def __init__(self, provider: FakeProvider) -> None:
        self.url = f"{provider.url}/v1"
        self.http = {
            "http_client": openai.DefaultHttpxClient(),
            "http_async_client": openai.DefaultAsyncHttpxClient(),
        }

    def __call__(self, name: str = "good", kind: Any = ChatOpenAI, **settings: Any) -> Any:
        return kind(base_url=self.url, api_key="k", model=name, max_retries=0, **self.http, **settings)


@pytest.fixture
async def models(provider: FakeProvider) -> AsyncIterator[Models]:
    made = Models(provider)
    yield made
    made.http["http_client"].close()
    await made.http["http_async_client"].aclose()


def config(kept: Kept, **more: Any) -> Any:
    return {"callbacks": [callback(kept)], **more}


async def test_a_call_is_one_event_with_all_that_langchain_knows(models: Models, kept: Kept) -> None:
    messages = [SystemMessage("Be brief."), HumanMessage("What is in a hive?")]
    metadata = {"session_id": "s1", "team": "bees"}
    answer = await models(temperature=0.5).ainvoke(
        messages, config=config(kept, metadata=metadata, tags=["t"], run_name="Ask")
    )
    assert answer.content == TEXT
    (event,) = kept.events
    assert event.pop("duration") == pytest.approx(event.pop("end_time") - event.pop("start_time"), abs=0.01)
    uuid.UUID(event.pop("event_id"))
    assert event == {
        "event_type": "model",
        "event_name": "Ask",
        "session_id": "s1",
        "model": "good-2026",
        "provider": "openai",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is in a hive?"},
        ],
        "response": {"role": "assistant", "content": TEXT, "finish_reason": "stop"},
        "usage": USAGE,
        "hyperparameters": {"temperature": 0.5},
        "metadata": {"team": "bees", "tags": ["t"]},
    }


async def test_the_collector_takes_successes_and_failures(
    models: Models, honeyhive_collector: Collector
) -> None:
    async with Batcher(**honeyhive_collector.settings()) as batcher:
        told = {"callbacks": [callback(batcher)]}
        with batcher.session(session_name="Ask") as session:
            await models().ainvoke("hi", config=told)
        with suppress(Exception):
            await models("fails-429").ainvoke("hi", config={**told, "metadata": {"session_id": "s1"}})
    stored = honeyhive_collector.events()
    assert [each.session_id for each in stored] == [session.session_id, "s1"]
    assert stored[1].event["error"] == "OpenAIRateLimitError: Error code: 429 - too many bees"


async def test_every_way_to_call_a_model_is_one_event_a_call(models: Models, kept: Kept) -> None:
    model = models(stream_usage=True)
    told = config(kept)
    await asyncio.to_thread(model.invoke, "hi", told)
    async for _ in model.astream("hi", config=told):
        pass
    await asyncio.to_thread(lambda: list(model.stream("hi", told)))
    await model.abatch(["a", "b"], config=told)
    await asyncio.to_thread(model.batch, ["c", "d"], told)
    assert len(kept.events) == 7
    assert {event["response"]["content"] for event in kept.events} == {TEXT}
    assert all(event["usage"] == USAGE and event["model"] == "good-2026" for event in kept.events)
    assert sorted(event["messages"][0]["content"] for event in kept.events[3:]) == ["a", "b", "c", "d"]
    assert len({event["event_id"] for event in kept.events}) == 7


async def test_a_stream_without_usage_has_none(models: Models, kept: Kept) -> None:
    async for _ in models(stream_usage=False).astream("hi", config=config(kept)):
        pass
    assert "usage" not in kept.events[0]
    assert kept.events[0]["response"]["content"] == TEXT


async def test_tools_are_told_whole(models: Models, kept: Kept) -> None:
    model = models().bind_tools([TOOL], tool_choice="auto")
    conversation = [
        HumanMessage("What is in a hive?"),
        AIMessage("", tool_calls=[{"name": "look_up", "args": {"word": "hive"}, "id": "call_0"}]),
        ToolMessage("a home of bees", tool_call_id="call_0", name="look_up"),
    ]
    await model.ainvoke(conversation, config=config(kept))
    async for _ in model.astream("hi", config=config(kept)):
        pass
    whole, streamed = kept.events
    assert whole["tools"] == [TOOL]
    assert whole["tool_choice"] == "auto"
    asked = {"name": "look_up", "arguments": '{"word":"hive"}'}
    assert whole["messages"][1]["tool_calls"] == [{"id": "call_0", "type": "function", "function": asked}]
    assert whole["messages"][2] == {
        "role": "tool",
        "content": "a home of bees",
        "tool_call_id": "call_0",
        "name": "look_up",
    }
    for event in (whole, streamed):
        called = {"id": "call_1", "type": "function", "function": asked}
        assert event["response"]["tool_calls"] == [called]


async def test_structured_output_and_the_responses_api(models: Models, kept: Kept) -> None:
    schema = {"title": "Answer", "type": "object", "properties": {"answer": {"type": "string"}}}
    structured = models().with_structured_output(schema, method="json_mode")
    await structured.ainvoke("answer in JSON", config=config(kept))
    await models(use_responses_api=True).ainvoke("hi", config=config(kept))
    first, second = kept.events
    assert first["response_format"] == {"type": "json_object"}
    assert second["response"]["content"][0]["text"] == TEXT
    assert second["usage"]["total_tokens"] == 19


async def test_a_completion_model_is_a_model(models: Models, kept: Kept) -> None:
    model = models(kind=OpenAI)
    await model.ainvoke("What is in a hive?", config=config(kept))
    await asyncio.to_thread(model.invoke, "What is in a hive?", config(kept))
    assert len(kept.events) == 2
    for event in kept.events:
        assert event["messages"] == [{"role": "user", "content": "What is in a hive?"}]
        assert event["response"] == {"role": "assistant", "content": TEXT, "finish_reason": "stop"}
        assert event["usage"]["total_tokens"] == 19


async def test_a_failure_is_one_event_and_the_callers_error_is_its_own(models: Models, kept: Kept) -> None:
    for call in (
        lambda: models("fails-429").ainvoke("hi", config=config(kept)),
        lambda: asyncio.to_thread(models("fails-429").invoke, "hi", config(kept)),
    ):
        with pytest.raises(Exception, match="too many bees"):
            await call()
    assert [event["error"] for event in kept.events] == [
        "OpenAIRateLimitError: Error code: 429 - too many bees"
    ] * 2


async def test_a_stream_that_breaks_is_one_event_with_what_came(models: Models, kept: Kept) -> None:
    with pytest.raises(Exception, match="Connection error"):
        async for _ in models("breaks").astream("hi", config=config(kept)):
            pass
    (event,) = kept.events
    assert "Connection error" in event["error"]
    assert TEXT.startswith(event["response"]["content"])
    assert event["metadata"]["incomplete"] is True


async def test_a_stream_that_is_left_is_one_event_without_an_error(models: Models, kept: Kept) -> None:
    stream = models().astream("hi", config=config(kept))
    async for chunk in stream:
        if chunk.content:
            break
    await stream.aclose()

    def leave() -> None:
        for _ in models().stream("hi", config(kept)):
            break
        gc.collect()

    await asyncio.to_thread(leave)
    assert len(kept.events) == 2
    for event in kept.events:
        assert "error" not in event
        assert event["metadata"]["incomplete"] is True
    assert kept.events[0]["response"]["content"] == "Bees"


async def cancelled(call: Any, *, provider: FakeProvider) -> None:
    """Cancel a call when its request has arrived."""
    before = len(provider.requests)
    task = asyncio.create_task(call)
    while len(provider.requests) == before:  # noqa: ASYNC110 - the provider is in another thread
        await asyncio.sleep(0.01)
    while not task.done():
        # Again and again: CPython 3.11's `wait_for`, by which LangChain waits for a chunk, loses a
        # cancellation that comes in the same turn as the chunk.
        task.cancel()
        await asyncio.wait((task,), timeout=0.05)
    assert task.cancelled()
    await asyncio.sleep(0)


async def test_a_call_that_is_cancelled_is_one_event(
    models: Models, provider: FakeProvider, kept: Kept
) -> None:
    async def consume() -> None:
        async for _ in models("hangs").astream("hi", config=config(kept)):
            pass

    await cancelled(models("hangs").ainvoke("hi", config=config(kept)), provider=provider)
    await cancelled(consume(), provider=provider)
    assert [event["error"] for event in kept.events] == ["CancelledError"] * 2
    assert all(event["metadata"]["incomplete"] for event in kept.events)


async def test_a_long_task_tells_of_its_cancelled_calls_when_it_ends(models: Models, kept: Kept) -> None:
    async def long() -> None:
        for _ in range(3):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await models("hangs").ainvoke("hi", config=config(kept))
            await models().ainvoke("hi", config=config(kept))
        assert len(kept.events) == 3

    await asyncio.create_task(long())
    await asyncio.sleep(0)
    assert len(kept.events) == 6
    assert sum("error" in event for event in kept.events) == 3


async def test_a_chain_and_a_graph_tell_of_their_model_calls_only(models: Models, kept: Kept) -> None:
    model = models()
    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | model | RunnableLambda(lambda x: x)
    await chain.ainvoke(
        {"question": "What is in a hive?"}, config=config(kept, metadata={"session_id": "s1"})
    )

    async def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", node)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    compiled: Any = graph.compile()
    question = {"messages": [("user", "What is in a hive?")]}
    await compiled.ainvoke(question, config=config(kept, metadata={"session_id": "s2"}))
    async for _ in compiled.astream(question, config=config(kept), stream_mode="messages"):
        pass
    first, second, third = kept.events
    assert [first["session_id"], second["session_id"]] == ["s1", "s2"]
    assert all(uuid.UUID(event["parent_id"]) for event in kept.events)
    assert second["metadata"]["langgraph_node"] == "ask"
    assert third["response"]["content"] == TEXT


async def test_a_handler_that_is_given_twice_tells_once(models: Models, kept: Kept) -> None:
    assert callback(kept) is callback(kept)
    end = instrument(kept)
    try:
        model = models(callbacks=[callback(kept)])
        await model.ainvoke("hi", config=config(kept))
        assert len(kept.events) == 1
    finally:
        end()


async def test_instrument_sees_every_call_until_it_is_ended(models: Models, kept: Kept) -> None:
    end = instrument(kept)
    other = Kept()
    end_other = instrument(other)
    model = models()
    await model.ainvoke("hi")
    thread = threading.Thread(target=model.invoke, args=("hi",))  # in a context of its own
    thread.start()
    thread.join()
    assert len(kept.events) == len(other.events) == 2
    end()
    end()
    await model.ainvoke("hi")
    end_other()
    await model.ainvoke("hi")
    assert (len(kept.events), len(other.events)) == (2, 3)
    again = instrument(kept)  # takes the hook that has ended
    await model.ainvoke("hi")
    again()
    assert (len(kept.events), len(other.events)) == (3, 3)


def is_inner(event: dict[str, Any]) -> bool:
    """Return whether the client has told this, and not LangChain."""
    return bool(event["event_name"] == "chat.completions")


class Inner:
    """A model of LangChain's over a client that tells of its calls itself."""

    def __init__(self, models: Models, kept: Kept, name: str = "good") -> None:
        http: Any = models.http["http_async_client"]
        client = openai.AsyncOpenAI(base_url=models.url, api_key="k", max_retries=0, http_client=http)
        self.client = instrument_client(client, kept)
        completions = self.client.chat.completions
        self.model = models(name, async_client=completions, root_async_client=self.client)


async def test_an_inner_adapter_is_silent_below_the_handler(
    models: Models, provider: FakeProvider, kept: Kept
) -> None:
    good, bad, slow = (Inner(models, kept, name) for name in ("good", "fails-429", "hangs"))
    await good.model.ainvoke("hi", config=config(kept))
    async for _ in good.model.astream("hi", config=config(kept)):
        pass
    with suppress(Exception):
        await bad.model.ainvoke("hi", config=config(kept))
    await cancelled(slow.model.ainvoke("hi", config=config(kept)), provider=provider)
    assert len(kept.events) == 4
    assert not any(is_inner(event) for event in kept.events)


async def test_what_the_program_calls_itself_is_told_by_the_inner_adapter(models: Models, kept: Kept) -> None:
    inner = Inner(models, kept)
    body: Any = {"model": "good", "messages": [{"role": "user", "content": "hi"}]}
    with suppress(TimeoutError):  # of this LangChain says nothing, in this context, any more
        async with asyncio.timeout(0.2):
            await models("hangs").ainvoke("hi", config=config(kept))
    await inner.client.chat.completions.create(**body)
    async for _ in models().astream("hi", config=config(kept)):
        if len(kept.events) == 1:
            await inner.client.chat.completions.create(**body)
    await asyncio.create_task(inner.client.chat.completions.create(**body))
    assert [is_inner(event) for event in kept.events] == [True, True, False, True]


async def test_an_instrumentation_below_the_handler_is_silent(models: Models, kept: Kept) -> None:
    tracers = TracerProvider()
    tracers.add_span_processor(HoneyHiveSpanProcessor(kept))
    OpenAIInstrumentor().instrument(tracer_provider=tracers)
    try:
        await models().ainvoke("hi", config=config(kept))
        async for _ in models().astream("hi", config=config(kept)):
            pass
        with suppress(Exception):
            await models("fails-429").ainvoke("hi", config=config(kept))
        assert len(kept.events) == 3
        assert not any("span_id" in event.get("metadata", {}) for event in kept.events)
        await models().ainvoke("hi")
        assert "span_id" in kept.events[3]["metadata"]
    finally:
        OpenAIInstrumentor().uninstrument()
        tracers.shutdown()


async def test_a_call_that_an_outer_adapter_has_claimed_is_not_told(models: Models, kept: Kept) -> None:
    with claim(kept):
        await models().ainvoke("hi", config=config(kept))
    assert kept.events == []


async def test_what_a_cache_answered_is_no_call(models: Models, kept: Kept) -> None:
    model = models(cache=InMemoryCache())
    for _ in range(2):
        answer = await model.ainvoke("hi", config=config(kept))
        assert answer.content == TEXT
    assert len(kept.events) == 1


async def test_an_answer_that_another_adapter_has_told_is_not_told_again(
    models: Models, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(body: dict[str, Any]) -> dict[str, Any]:
        return fake_answers.chat(body) | {"id": "chatcmpl-123"}

    monkeypatch.setattr(fake_provider, "_ROUTES", {"/chat/completions": (whole, None)})
    assert is_news(kept, "chatcmpl-123", "another adapter")
    for _ in range(2):
        await models().ainvoke("hi", config=config(kept))
    assert len(kept.events) == 1, "the second answer with this id is another one"


async def test_a_run_may_begin_where_no_task_runs(kept: Kept) -> None:
    runs = Runs(kept)
    about = {"run_id": 1}
    asyncio.get_running_loop().call_soon(lambda: runs.begin({}, [["hi"]], about, in_its_task=True))
    await asyncio.sleep(0)
    runs.fail(ValueError("no"), about)
    assert len(kept.events) == 1


class Silent(LLM):  # type: ignore[misc]  # Any to mypy: optional
    """A model that says nothing of itself."""

    @property
    def _llm_type(self) -> str:
        return "silent"

    def _call(self, prompt: str, stop: Any = None, run_manager: Any = None, **_more: Any) -> str:
        return "Honey."


def test_a_model_of_ones_own_is_told_in_plain_code(kept: Kept) -> None:
    Silent().invoke("hi", config=config(kept))
    FakeListChatModel(responses=["Honey."]).invoke([ChatMessage("hi", role="beekeeper")], config=config(kept))
    first, second = kept.events
    assert first["response"] == second["response"] == {"role": "assistant", "content": "Honey."}
    assert second["messages"] == [{"role": "beekeeper", "content": "hi"}]
    assert "usage" not in first


def test_strange_things_are_counted_and_hurt_nobody(kept: Kept) -> None:
    runs = Runs(kept)
    runs.begin({}, [], {"run_id": 1}, in_its_task=False)
    runs.begin({}, [["hi"]], {"run_id": 2, "metadata": 7}, in_its_task=True)
    runs.end(object(), {"run_id": 2})
    runs.end(object(), {"run_id": 3})
    runs.fail(ValueError(), {})
    assert kept.events == [None, None]
    runs.begin(None, [[7]], {"run_id": 4}, in_its_task=False)
    runs.fail(ValueError(), {"run_id": 4})
    assert kept.events[2]["error"] == "ValueError"
    assert kept.events[2]["messages"] == [7]


def test_runs_without_an_end_do_not_pile_up(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_MAX_UNDER_WAY", 1)
    runs = Runs(kept)
    for number in range(3):
        runs.begin({}, [["hi"]], {"run_id": number}, in_its_task=False)
    assert [event["event_id"] for event in kept.events] == ["0", "1"]
    assert all(event["metadata"]["incomplete"] for event in kept.events)


def test_arguments_that_are_no_json_are_told_as_they_are(kept: Kept) -> None:
    runs = Runs(kept)
    call = {
        "name": "look_up",
        "args": "{word",
        "id": "call_1",
        "error": "no JSON",
        "type": "invalid_tool_call",
    }
    runs.begin({}, [[AIMessage("", invalid_tool_calls=[call])]], {"run_id": 1}, in_its_task=False)
    runs.fail(ValueError("no"), {"run_id": 1})
    assert kept.events[0]["messages"][0]["tool_calls"][0]["function"]["arguments"] == "{word"


def test_a_sentence_says_what_to_install(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core.callbacks", None)
    langchain._handler_class.cache_clear()
    with pytest.raises(ImportError, match="pip install langchain-core"):
        callback(kept)


def test_the_users_handlers_are_called_as_ever(kept: Kept) -> None:
    class Theirs(BaseCallbackHandler):  # type: ignore[misc]  # Any to mypy: optional
        seen: list[str] = []  # noqa: RUF012 - shared on purpose

        def on_llm_end(self, response: Any, **_about: Any) -> None:
            self.seen.append(response.generations[0][0].text)

    both: Any = {"callbacks": [Theirs(), callback(kept)]}
    FakeListChatModel(responses=["Honey."]).invoke("hi", config=both)
    assert Theirs.seen == ["Honey."]
    assert len(kept.events) == 1
