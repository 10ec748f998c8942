"""The callback with the real LiteLLM."""

import asyncio
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import openai
import pytest

from honeyhive_batcher import Batcher
from honeyhive_batcher.claims import claim
from honeyhive_batcher.integrations import litellm as adapter
from honeyhive_batcher.integrations.litellm import callback, told
from honeyhive_batcher.integrations.litellm_values import answer_id, model_event
from honeyhive_batcher.integrations.openai import instrument
from honeyhive_batcher.testing import Collector
from tests.integrations.fake_provider import FakeProvider, provider_in_thread
from tests.integrations.kept import Kept

with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patched:
    warnings.simplefilter("ignore")
    patched.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else the import asks GitHub for prices
    import litellm

pytestmark = [
    pytest.mark.anyio,
    # LiteLLM imports a part of itself at its first call, and uses what others have deprecated.
    pytest.mark.filterwarnings("ignore:Items? .* on TypedDict class:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
MESSAGES = [{"role": "user", "content": "What is in a hive?"}]
TEXT = "Bees make honey in a hive."
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


class Seen(Kept):
    """Keeps events, and lets a test wait for them: LiteLLM tells of calls in the background."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.threads: set[str] = set()

    def push(self, event: object, *, session: Any = None) -> Any:
        """Keep an event."""
        self.threads.add(threading.current_thread().name)
        return super().push(event, session=session)

    async def wait_for(self, count: int) -> list[Any]:
        """Wait for so many events, and a while longer for one too many."""
        async with asyncio.timeout(20):
            while len(self.events) < count:  # noqa: ASYNC110 - told from a thread
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert len(self.events) == count
        return self.events


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with provider_in_thread() as fake:
        yield fake


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    kept = Seen()
    litellm.callbacks = [callback(kept)]
    monkeypatch.setattr(litellm, "suppress_debug_info", True)
    yield kept
    litellm.logging_callback_manager._reset_all_callbacks()


class Clients:
    def __init__(self, provider: FakeProvider) -> None:
        settings = {"base_url": f"{provider.url}/v1", "api_key": "k", "max_retries": 0}
        self.settings: Any = settings
        self.plain = openai.OpenAI(**self.settings)
        self.waiting = openai.AsyncOpenAI(**self.settings)

    async def acompletion(self, model: str = "gpt-4o", **more: Any) -> Any:
        named = {"client": self.waiting, "messages": MESSAGES, "num_retries": 0, **more}
        return await litellm.acompletion(model=f"openai/{model}", **named)

    def completion(self, model: str = "gpt-4o", **more: Any) -> Any:
        named = {"client": self.plain, "messages": MESSAGES, "num_retries": 0, **more}
        return litellm.completion(model=f"openai/{model}", **named)


@pytest.fixture
async def clients(provider: FakeProvider) -> AsyncIterator[Clients]:
    made = Clients(provider)
    yield made
    made.plain.close()
    await made.waiting.close()
    await litellm.close_litellm_async_clients()


async def test_a_call_is_one_event_with_litellms_cost(clients: Clients, seen: Seen) -> None:
    answer = await clients.acompletion(
        temperature=0.3,
        tools=[TOOL],
        tool_choice="auto",
        user="u1",
        metadata={"session_id": "s1", "tags": ["t"]},
    )
    (event,) = await seen.wait_for(1)
    assert answer.choices[0].message.tool_calls[0].function.name == "look_up"
    assert event.pop("duration") == pytest.approx(event.pop("end_time") - event.pop("start_time"), abs=0.01)
    assert event.pop("cost") == pytest.approx(litellm.completion_cost(answer, model="gpt-4o"))
    assert event == {
        "event_type": "model",
        "event_name": "acompletion",
        "model": "gpt-4o",
        "provider": "openai",
        "messages": MESSAGES,
        "response": {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "look_up", "arguments": '{"word": "hive"}'},
                }
            ],
            "finish_reason": "tool_calls",
        },
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 7,
            "total_tokens": 19,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        "hyperparameters": {"temperature": 0.3, "user": "u1"},
        "tools": [TOOL],
        "tool_choice": "auto",
        "session_id": "s1",
        "metadata": {"tags": ["t"]},
    }


async def test_success_failure_and_a_blocking_call_reach_the_collector(
    clients: Clients, seen: Seen, honeyhive_collector: Collector
) -> None:
    async with Batcher(**honeyhive_collector.settings()) as batcher:
        litellm.callbacks = [callback(batcher), callback(seen)]
        with batcher.session(session_name="Ask") as session:
            await clients.acompletion()
            with pytest.raises(litellm.RateLimitError):
                await clients.acompletion("fails-429")
            await asyncio.to_thread(clients.completion)
            await asyncio.to_thread(lambda: list(clients.completion(stream=True)))
        await seen.wait_for(4)
    stored = honeyhive_collector.events()
    assert {each.session_id for each in stored} == {session.session_id}
    assert sorted(each.event.get("error", "") for each in stored)[3].startswith("litellm.RateLimitError: ")
    assert sum(each.event.get("cost", 0) > 0 for each in stored) == 3


@pytest.mark.parametrize("usage", [True, False])
async def test_a_stream_is_one_event(clients: Clients, seen: Seen, usage: bool) -> None:
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    stream = await clients.acompletion(stream=True, **more)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(pieces) == TEXT
    await asyncio.to_thread(lambda: list(clients.completion(stream=True, **more)))
    for event in await seen.wait_for(2):
        assert event["response"] == {"role": "assistant", "content": TEXT, "finish_reason": "stop"}
        if usage:
            assert event["usage"]["total_tokens"] == 19
        # Without, LiteLLM counts itself. That it knows nothing is tested below.


async def test_failures_are_one_event_each_and_the_callers_error_is_its_own(
    clients: Clients, seen: Seen
) -> None:
    with pytest.raises(litellm.RateLimitError):
        await clients.acompletion("fails-429")
    with pytest.raises(litellm.RateLimitError):
        await asyncio.to_thread(clients.completion, "fails-429")
    with pytest.raises(Exception, match="Connection error"):
        async for _ in await clients.acompletion("breaks", stream=True):
            pass
    first, second, third = await seen.wait_for(3)
    assert first["error"] == second["error"]
    assert first["error"].startswith("litellm.RateLimitError: ")
    assert "Connection error" in third["error"]
    assert not any("cost" in event or "response" in event for event in (first, second, third))


async def test_the_price_of_a_model_that_nobody_knows_is_left_out(clients: Clients, seen: Seen) -> None:
    await clients.acompletion("good")
    (event,) = await seen.wait_for(1)
    assert event["usage"]["total_tokens"] == 19
    assert "cost" not in event


async def test_other_kinds_of_calls(clients: Clients, provider: FakeProvider, seen: Seen) -> None:
    there: Any = {"api_base": f"{provider.url}/v1", "api_key": "k"}
    await litellm.aembedding(model="openai/good", input=["honey"], client=clients.waiting, **there)
    await litellm.atext_completion(
        model="text-completion-openai/good", prompt="Say honey", client=clients.waiting, **there
    )
    await litellm.aresponses(model="openai/gpt-4o", input="What is in a hive?", **there)
    text, response = sorted(await seen.wait_for(2), key=lambda event: event["model"], reverse=True)
    assert text["event_name"] == "aresponses" or text["event_name"] == "atext_completion"
    by_name = {event["event_name"]: event for event in (text, response)}
    assert by_name["atext_completion"]["response"]["content"] == TEXT
    assert by_name["aresponses"]["response"][0]["content"][0]["text"] == TEXT


async def test_the_bound_session_is_that_of_the_beginning(clients: Clients, seen: Seen) -> None:
    async with Batcher(test_mode=True) as batcher:
        with batcher.session() as session:
            await asyncio.to_thread(lambda: list(clients.completion(stream=True)))
        await clients.acompletion(litellm_session_id="s2")
        first, second = await seen.wait_for(2)
    assert seen.bound == [(session,), ()]
    assert "session_id" not in first
    assert second["session_id"] == "s2"


async def test_a_callback_that_is_registered_twice_tells_once(clients: Clients, seen: Seen) -> None:
    assert callback(seen) is callback(seen)
    litellm.callbacks = [callback(seen), callback(seen)]
    await clients.acompletion()
    with pytest.raises(litellm.RateLimitError):
        await clients.acompletion("fails-429")
    await seen.wait_for(2)


async def test_a_call_that_an_inner_adapter_has_told_is_not_told_again(
    clients: Clients, provider: FakeProvider, seen: Seen
) -> None:
    inner = instrument(openai.AsyncOpenAI(**clients.settings), seen)
    await clients.acompletion(client=inner)
    with pytest.raises(litellm.RateLimitError):
        await clients.acompletion("fails-429", client=inner)
    await inner.close()
    assert [event["event_name"] for event in await seen.wait_for(2)] == ["chat.completions"] * 2


async def test_a_call_that_an_outer_adapter_has_claimed_is_not_told(clients: Clients, seen: Seen) -> None:
    with claim(seen):
        await clients.acompletion()
        with pytest.raises(litellm.RateLimitError):
            await clients.acompletion("fails-429")
    await seen.wait_for(0)


async def test_many_calls_at_once_are_each_one_event(clients: Clients, seen: Seen) -> None:
    await asyncio.gather(*(clients.acompletion(user=str(number)) for number in range(40)))
    events = await seen.wait_for(40)
    assert {event["hyperparameters"]["user"] for event in events} == {str(number) for number in range(40)}


async def test_a_program_that_ends_waits_until_all_is_told(clients: Clients, seen: Seen) -> None:
    assert await told(Kept())
    assert await told(seen)
    await asyncio.gather(*(clients.acompletion() for _ in range(3)))
    with pytest.raises(litellm.RateLimitError):
        await asyncio.to_thread(clients.completion, "fails-429")
    assert await told(seen)
    assert len(seen.events) == 4
    with suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await clients.acompletion("hangs")
    assert not await told(seen, timeout=0.05)


async def test_two_batchers_are_both_told(clients: Clients, seen: Seen) -> None:
    other = Seen()
    litellm.callbacks = [callback(seen), callback(other)]
    await clients.acompletion()
    assert len(await seen.wait_for(1)) == len(await other.wait_for(1))


def record(**more: Any) -> dict[str, Any]:
    return {
        "standard_logging_object": {
            "id": "answer-1",
            "call_type": "acompletion",
            "status": "success",
            "model": "good",
            **more,
        }
    }


def test_no_tokens_with_text_means_that_nothing_is_known() -> None:
    event = model_event(
        record(
            response={"choices": [{"message": {"role": "assistant", "content": "Honey."}}]},
            prompt_tokens=0,
            completion_tokens=0,
            total_tokens=0,
            response_cost=0.0,
        )
    )
    assert event == {
        "event_type": "model",
        "event_name": "acompletion",
        "model": "good",
        "response": {"role": "assistant", "content": "Honey."},
    }


def test_what_a_cache_answered_is_no_call() -> None:
    assert model_event(record(cache_hit=True)) is None


def test_answers_of_other_shapes_are_told_as_they_are() -> None:
    assert (model_event(record(response="Honey.", messages="hi")) or {})["response"] == "Honey."
    assert (model_event(record(messages="hi")) or {})["messages"] == [{"role": "user", "content": "hi"}]
    assert (model_event(record(response={"content": []})) or {})["response"] == {"content": []}
    two = [{"text": "one"}, {"text": "two"}]
    assert (model_event(record(response={"choices": two})) or {})["response"] == [
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]
    event = model_event(record(end_user="u1", session_id="s3", total_tokens=1)) or {}
    assert event["user_properties"] == {"user_id": "u1"}
    assert event["session_id"] == "s3"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("chatcmpl-1", "chatcmpl-1"),
        ("resp_bW9kZWxfaWQ6Tm9uZTtyZXNwb25zZV9pZDpyZXNwXzEx", "resp_11"),
        ("resp_11", "resp_11"),
        ("resp_é", "resp_é"),
        ("resp_aGl2ZQ==", "resp_aGl2ZQ=="),
        (None, None),
    ],
)
def test_the_answer_id_is_the_providers(given: str | None, expected: str | None) -> None:
    assert answer_id(record(id=given)) == expected
    assert answer_id(record(id=given, status="failure")) is None
    assert answer_id({}) is None


def test_strange_records_are_counted_and_hurt_nobody(seen: Seen) -> None:
    logger = callback(seen)
    strange: list[Callable[[], Any]] = [
        lambda: logger.log_pre_api_call("good", [], None),
        lambda: logger.log_success_event({"standard_logging_object": 7}, None, None, None),
        lambda: logger.log_failure_event(None, None, None, None),
    ]
    for call in strange:
        call()
    with suppress(StopIteration):
        logger.async_log_success_event(record(model_parameters=7), None, None, None).send(None)
    assert seen.events == [None] * 4
    logger.log_success_event({}, None, None, None)  # LiteLLM could not make its record
    assert len(seen.events) == 4


def test_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm.integrations.custom_logger", None)
    adapter._logger_class.cache_clear()
    with pytest.raises(ImportError, match="pip install litellm"):
        callback(Kept())
