"""The adapter with the real client of OpenAI."""

import asyncio
import copy
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import openai
import pydantic
import pytest

from honeyhive_batcher import Batcher, BlockingBatcher, ConfigError, producer
from honeyhive_batcher.claims import claim
from honeyhive_batcher.integrations import failures, instrumented
from honeyhive_batcher.integrations.openai import instrument, uninstrument
from honeyhive_batcher.testing import capture
from tests.integrations import fake_answers, fake_provider
from tests.integrations.fake_answers import ARGUMENTS, STRUCTURED, TEXT, TOOL, USAGE
from tests.integrations.fake_provider import FakeProvider, provider_in_thread
from tests.integrations.kept import Kept

pytestmark = pytest.mark.anyio

MESSAGES: list[Any] = [{"role": "user", "content": "What is in a hive?"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": TOOL, "arguments": ARGUMENTS}}
TOOLS: list[Any] = [{"type": "function", "function": {"name": TOOL, "parameters": {"type": "object"}}}]
RESPONSE_TOOLS: list[Any] = [{"type": "function", "name": TOOL, "parameters": {"type": "object"}}]


class Honey(pydantic.BaseModel):
    answer: str


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with provider_in_thread() as fake:
        yield fake


@pytest.fixture
def kept() -> Kept:
    return Kept()


class Clients:
    """The same client twice: one that blocks and one that does not, each instrumented."""

    def __init__(self, provider: FakeProvider, kept: Kept) -> None:
        settings: Any = {"base_url": f"{provider.url}/v1", "api_key": "k", "max_retries": 0}
        self.blocking = instrument(openai.OpenAI(**settings), kept)
        self.awaited = instrument(openai.AsyncOpenAI(**settings), kept)


@pytest.fixture
async def clients(provider: FakeProvider, kept: Kept) -> AsyncIterator[Clients]:
    both = Clients(provider, kept)
    yield both
    await both.awaited.close()
    both.blocking.close()


def only(kept: Kept) -> dict[str, Any]:
    gc.collect()
    (event,) = kept.events
    assert event is not None, "the adapter failed"
    return dict(event)


async def test_a_chat_is_one_event(clients: Clients, kept: Kept) -> None:
    for call in (clients.blocking, clients.awaited):
        kept.events.clear()
        answer: Any = call.chat.completions.create(
            model="good", messages=MESSAGES, temperature=0.5, seed=7, stop=["."], user="bee"
        )
        if call is clients.awaited:
            answer = await answer
        assert type(answer) is openai.types.chat.ChatCompletion
        event = only(kept)
        duration = event.pop("duration")
        assert duration > 0
        assert event.pop("end_time") == event.pop("start_time") + duration
        assert event == {
            "event_type": "model",
            "event_name": "chat.completions",
            "model": "good-2026",
            "provider": "openai",
            "messages": MESSAGES,
            "response": {"role": "assistant", "content": TEXT, "finish_reason": "stop"},
            "usage": USAGE,
            "hyperparameters": {"temperature": 0.5, "seed": 7, "stop": ["."]},
            "user_properties": {"user_id": "bee"},
            "metadata": {"response_id": answer.id, "system_fingerprint": "fp_1"},
        }


async def test_a_call_of_a_tool_is_told(clients: Clients, kept: Kept) -> None:
    await clients.awaited.chat.completions.create(
        model="good", messages=MESSAGES, tools=TOOLS, tool_choice="auto"
    )
    event = only(kept)
    assert event["response"]["tool_calls"] == [CALL]
    assert event["response"]["content"] is None
    assert event["tools"] == TOOLS
    assert event["tool_choice"] == "auto"


@pytest.mark.parametrize("usage", [None, USAGE])
async def test_a_stream_is_one_event_at_its_end(clients: Clients, kept: Kept, usage: Any) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    for is_async in (False, True):
        kept.events.clear()
        texts: list[str] = []
        if is_async:
            stream: Any = await clients.awaited.chat.completions.create(
                model="good", messages=MESSAGES, stream=True, **options
            )
            assert type(stream) is openai.AsyncStream
            async for chunk in stream:
                assert type(chunk) is openai.types.chat.ChatCompletionChunk
                assert not kept.events
                texts += [choice.delta.content or "" for choice in chunk.choices]
        else:
            stream = clients.blocking.chat.completions.create(
                model="good", messages=MESSAGES, stream=True, **options
            )
            assert type(stream) is openai.Stream
            for chunk in stream:
                texts += [choice.delta.content or "" for choice in chunk.choices]
        assert "".join(texts) == TEXT
        event = only(kept)
        assert event["response"] == {"role": "assistant", "content": TEXT, "finish_reason": "stop"}
        assert event.get("usage") == usage
        assert event["model"] == "good-2026"
        assert "incomplete" not in event["metadata"]
        assert "error" not in event


async def test_a_streamed_call_of_a_tool_and_several_choices(clients: Clients, kept: Kept) -> None:
    stream = await clients.awaited.chat.completions.create(
        model="good", messages=MESSAGES, stream=True, tools=TOOLS, n=2
    )
    async for _ in stream:
        pass
    event = only(kept)
    told = {"role": "assistant", "content": None, "tool_calls": [CALL], "finish_reason": "tool_calls"}
    assert event["response"] == [told] * 2
    assert event["hyperparameters"] == {"n": 2}


async def test_what_is_parsed_stays_the_users_own(clients: Clients, kept: Kept) -> None:
    parsed = await clients.awaited.chat.completions.parse(
        model="good", messages=MESSAGES, response_format=Honey
    )
    assert parsed.choices[0].message.parsed == Honey(answer="honey")
    event = only(kept)
    assert event["response"] == {"role": "assistant", "content": STRUCTURED, "finish_reason": "stop"}
    assert event["response_format"]["type"] == "json_schema"


async def test_the_helper_of_streams_is_one_event(clients: Clients, kept: Kept) -> None:
    async with clients.awaited.chat.completions.stream(
        model="good", messages=MESSAGES, response_format=Honey
    ) as stream:
        async for _ in stream:
            pass
        assert (await stream.get_final_completion()).choices[0].message.parsed == Honey(answer="honey")
    assert only(kept)["response"]["content"] == STRUCTURED


async def test_the_older_completions(clients: Clients, kept: Kept) -> None:
    await clients.awaited.completions.create(model="good", prompt="What is in a hive?", max_tokens=9)
    event = only(kept)
    assert event["event_name"] == "completions"
    assert event["messages"] == MESSAGES
    assert event["response"] == {"role": "assistant", "content": TEXT, "finish_reason": "stop"}
    assert event["hyperparameters"] == {"max_tokens": 9}
    kept.events.clear()
    async for _ in await clients.awaited.completions.create(model="good", prompt="What?", stream=True):
        pass
    assert only(kept)["response"] == {"role": "assistant", "content": TEXT, "finish_reason": "stop"}


async def test_responses_whole_and_streamed(clients: Clients, kept: Kept) -> None:
    asked: Any = {
        "model": "good",
        "instructions": "Be short.",
        "input": "What is in a hive?",
        "max_output_tokens": 99,
        "previous_response_id": "resp_0",
    }
    for is_streamed in (False, True):
        kept.events.clear()
        answer = await clients.awaited.responses.create(**asked, stream=is_streamed)
        if is_streamed:
            async for _ in answer:
                pass
        event = only(kept)
        assert event["event_name"] == "responses"
        assert event["messages"] == [{"role": "system", "content": "Be short."}, *MESSAGES]
        assert event["response"] == {"role": "assistant", "content": TEXT}
        assert event["usage"] == {
            "prompt_tokens": 12,
            "completion_tokens": 7,
            "total_tokens": 19,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 2},
        }
        assert event["hyperparameters"] == {"max_output_tokens": 99}
        assert event["metadata"]["previous_response_id"] == "resp_0"
        assert event["metadata"]["status"] == "completed"
        assert event["metadata"]["response_id"].startswith("resp_")


async def test_responses_parsed_with_a_tool_and_by_their_helper(clients: Clients, kept: Kept) -> None:
    parsed = await clients.awaited.responses.parse(model="good", input="What?", text_format=Honey)
    assert parsed.output_parsed == Honey(answer="honey")
    event = only(kept)
    assert event["response"] == {"role": "assistant", "content": STRUCTURED}
    assert event["response_format"]["type"] == "json_schema"
    kept.events.clear()
    async with clients.awaited.responses.stream(model="good", input="What?", tools=RESPONSE_TOOLS) as stream:
        async for _ in stream:
            pass
    event = only(kept)
    assert event["response"] == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert event["tools"]


async def test_raw_responses_stay_raw(clients: Clients, kept: Kept) -> None:
    raw = await clients.awaited.chat.completions.with_raw_response.create(model="good", messages=MESSAGES)
    assert raw.headers["x-request-id"] == "req_1"
    assert raw.parse().choices[0].message.content == TEXT
    event = only(kept)
    assert event["response"]["content"] == TEXT
    assert event["usage"] == USAGE

    kept.events.clear()
    raw_stream = await clients.awaited.chat.completions.with_raw_response.create(
        model="good", messages=MESSAGES, stream=True
    )
    assert not kept.events
    async for _ in raw_stream.parse():
        pass
    assert only(kept)["response"]["content"] == TEXT


async def test_a_response_that_is_read_by_the_user(clients: Clients, kept: Kept) -> None:
    ways: list[Callable[[Any], Any]] = [
        lambda response: response.parse(),
        lambda response: response.text(),
        lambda response: response.json(),
        lambda response: _all(response.iter_lines()),
        lambda response: _all(response.iter_bytes(3)),
    ]
    for read in ways:
        kept.events.clear()
        async with clients.awaited.chat.completions.with_streaming_response.create(
            model="good", messages=MESSAGES
        ) as response:
            assert not kept.events
            await read(response)
        assert only(kept)["response"]["content"] == TEXT
    kept.events.clear()
    with clients.blocking.chat.completions.with_streaming_response.create(
        model="good", messages=MESSAGES, stream=True
    ) as response:
        lines = list(response.iter_lines())
    assert lines[-2:] == ["data: [DONE]", ""]
    assert only(kept)["response"]["content"] == TEXT


async def _all(parts: Any) -> list[Any]:
    return [part async for part in parts]


async def test_a_response_that_nobody_reads(clients: Clients, kept: Kept) -> None:
    async with clients.awaited.chat.completions.with_streaming_response.create(
        model="good", messages=MESSAGES
    ):
        pass
    event = only(kept)
    assert "response" not in event
    assert event["metadata"]["incomplete"] is True


async def test_whatever_the_client_is_asked_for(clients: Clients, kept: Kept) -> None:
    raw = await clients.awaited.chat.completions.with_raw_response.create(model="good", messages=MESSAGES)
    for kind in (type(raw.http_response), object, dict[str, Any], str):
        kept.events.clear()
        answer = await clients.awaited.post(
            "/chat/completions", cast_to=kind, body={"model": "good", "messages": MESSAGES}
        )
        event = only(kept)
        assert event["model"].startswith("good")
        if isinstance(answer, str):  # there is no telling what it says
            assert event["metadata"] == {"incomplete": True}
        else:
            assert event["response"]["content"] == TEXT


# Ends of streams.


async def _break(stream: Any) -> None:
    async for _ in stream:
        break


async def _break_and_close(stream: Any) -> None:
    await _break(stream)
    await stream.close()


async def _close_at_once(stream: Any) -> None:
    await stream.close()


async def _within(stream: Any) -> None:
    async with stream:
        await _break(stream)


async def _raise(stream: Any) -> None:
    with suppress(ZeroDivisionError):
        async for _ in stream:
            raise ZeroDivisionError


async def _drop(stream: Any) -> None:
    pass


@pytest.mark.parametrize("leave", [_break, _break_and_close, _within, _raise])
async def test_a_stream_that_is_left_keeps_what_came(clients: Clients, kept: Kept, leave: Any) -> None:
    stream = await clients.awaited.chat.completions.create(model="hangs", messages=MESSAGES, stream=True)
    await leave(stream)
    del stream
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0)
    event = only(kept)
    assert event["metadata"]["incomplete"] is True
    assert event["model"] == "hangs-2026"
    assert "error" not in event
    assert "finish_reason" not in event["response"]
    assert TEXT.startswith(event["response"]["content"])


@pytest.mark.parametrize("leave", [_close_at_once, _drop])
async def test_a_stream_that_nobody_reads(clients: Clients, kept: Kept, leave: Any) -> None:
    stream = await clients.awaited.chat.completions.create(model="hangs", messages=MESSAGES, stream=True)
    await leave(stream)
    del stream
    event = only(kept)
    assert event["metadata"] == {"incomplete": True}
    assert event["model"] == "hangs"
    assert "response" not in event


async def test_a_blocking_stream_that_is_left(clients: Clients, kept: Kept) -> None:
    for leave in ("break", "close", "with", "raise", "drop"):
        kept.events.clear()
        stream = clients.blocking.chat.completions.create(model="good", messages=MESSAGES, stream=True)
        if leave != "drop":
            next(stream)
        if leave == "close":
            stream.close()
        if leave == "with":
            with stream:
                pass
        if leave == "raise":
            with suppress(ZeroDivisionError):
                for _ in stream:
                    raise ZeroDivisionError
        del stream
        event = only(kept)
        assert event["metadata"]["incomplete"] is True
        assert ("response" in event) == (leave != "drop")


async def test_a_cancelled_call_is_told(clients: Clients, kept: Kept) -> None:
    stream = await clients.awaited.chat.completions.create(model="hangs", messages=MESSAGES, stream=True)
    parts: list[Any] = []

    async def read() -> None:
        async for part in stream:
            parts.append(part)

    for begin in (read, lambda: clients.awaited.chat.completions.create(model="hangs", messages=MESSAGES)):
        kept.events.clear()
        task: asyncio.Task[Any] = asyncio.ensure_future(begin())
        await asyncio.sleep(0.1)
        assert not kept.events
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        event = only(kept)
        assert event["error"].startswith("CancelledError")
        if begin is read:
            assert parts
            assert event["metadata"]["incomplete"] is True
            assert TEXT.startswith(event["response"]["content"])


async def test_a_stream_that_breaks_and_one_that_says_so(clients: Clients, kept: Kept) -> None:
    for model, said in (
        ("breaks", "incomplete chunked read"),
        ("garbles", "overloaded_error: too many bees"),
    ):
        kept.events.clear()
        stream = await clients.awaited.chat.completions.create(model=model, messages=MESSAGES, stream=True)
        with pytest.raises(Exception, match=r".*"):
            async for _ in stream:
                pass
        event = only(kept)
        assert said in event["error"]
        assert TEXT.startswith(event["response"]["content"])
        assert event["metadata"]["incomplete"] is True


@pytest.mark.parametrize("model", ["hangs", "garbles", "breaks"])
async def test_responses_that_are_left_or_break(clients: Clients, kept: Kept, model: str) -> None:
    stream = await clients.awaited.responses.create(model=model, input="What?", stream=True)
    with suppress(Exception):
        async with asyncio.timeout(0.2):
            async for _ in stream:
                pass
    event = only(kept)
    assert event["metadata"]["incomplete"] is True
    assert TEXT.startswith(event["response"]["content"])
    assert event["metadata"]["response_id"].startswith("resp_")


async def test_an_error_is_told_and_raised(clients: Clients, kept: Kept) -> None:
    with pytest.raises(openai.RateLimitError, match="too many bees"):
        await clients.awaited.chat.completions.create(model="fails-429", messages=MESSAGES)
    event = only(kept)
    assert event["error"].startswith("RateLimitError: Error code: 429")
    assert event["model"] == "fails-429"
    assert "response" not in event
    assert "metadata" not in event


async def test_what_the_client_tries_again_is_one_call(clients: Clients, kept: Kept) -> None:
    client = clients.awaited.with_options(max_retries=2)
    await client.chat.completions.create(model="flaky-429-again", messages=MESSAGES)
    event = only(kept)
    assert event["response"]["content"] == TEXT
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(model="fails-429", messages=MESSAGES)
    assert len(kept.events) == 2


async def test_copies_tell_and_embeddings_do_not(clients: Clients, kept: Kept) -> None:
    await (
        clients.awaited.copy()
        .with_options(timeout=3)
        .chat.completions.create(model="good", messages=MESSAGES)
    )
    only(kept)
    await clients.awaited.embeddings.create(model="good", input="bee")
    await clients.awaited.with_raw_response.embeddings.create(model="good", input="bee")
    clients.blocking.embeddings.create(model="good", input="bee")
    assert len(kept.events) == 1


async def test_it_is_taken_off_again(provider: FakeProvider, kept: Kept) -> None:
    client = openai.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="k")
    before = dict(vars(client))
    assert instrument(instrument(client, kept), kept) is client
    await client.chat.completions.create(model="good", messages=MESSAGES)
    assert len(kept.events) == 1
    assert uninstrument(client) is client
    await client.chat.completions.create(model="good", messages=MESSAGES)
    assert len(kept.events) == 1
    assert {name for name in vars(client) if name != "chat"} == {name for name in before if name != "chat"}
    assert uninstrument(client) is client  # once more does nothing
    await client.close()


async def test_what_another_has_put_over_it_is_left_alone(provider: FakeProvider, kept: Kept) -> None:
    client: Any = openai.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="k")
    seen: list[str] = []

    def counting(own: Any) -> Any:
        async def request(*arguments: Any, **named: Any) -> Any:
            seen.append("call")
            return await own(*arguments, **named)

        return request

    client.request = counting(client.request)
    below = client.request
    instrument(client, kept)
    await client.chat.completions.create(model="good", messages=MESSAGES)
    assert (len(seen), len(kept.events)) == (1, 1)
    uninstrument(client)
    assert client.request is below
    instrument(client, kept)
    client.request = counting(client.request)
    uninstrument(client)
    await client.chat.completions.create(model="good", messages=MESSAGES)
    await client.with_options(timeout=3).chat.completions.create(model="good", messages=MESSAGES)
    assert len(kept.events) == 1
    instrument(client, kept)
    await client.chat.completions.create(model="good", messages=MESSAGES)
    assert len(kept.events) == 2
    await client.close()


async def test_the_batcher_may_be_another_later(clients: Clients, kept: Kept) -> None:
    other = Kept()
    instrument(clients.awaited, other)
    await clients.awaited.chat.completions.create(model="good", messages=MESSAGES)
    assert (len(kept.events), len(other.events)) == (0, 1)


@pytest.mark.parametrize("thing", [None, "a client", object()])
def test_what_is_no_client_is_refused(thing: Any, kept: Kept) -> None:
    with pytest.raises(ConfigError, match=f"Expected a client, got {type(thing).__name__}"):
        instrument(thing, kept)
    assert uninstrument(thing) is thing


@pytest.mark.parametrize(
    ("address", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://hive.openai.azure.com/openai/v1", "azure"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://notopenrouter.ai/v1", "openai"),
        ("http://localhost:8000/v1", "openai"),
    ],
)
def test_the_address_tells_the_provider(address: str, provider: str, kept: Kept) -> None:
    client = instrument(openai.OpenAI(base_url=address, api_key="k", max_retries=0, timeout=0.001), kept)
    client.base_url = "http://127.0.0.1:1/v1"
    with pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="good", messages=MESSAGES)
    assert only(kept)["provider"] == provider
    client.close()


async def test_the_provider_may_be_given_and_azure_has_other_paths(
    provider: FakeProvider, kept: Kept
) -> None:
    client = openai.AsyncAzureOpenAI(
        azure_endpoint=provider.url, api_key="k", api_version="2026-01-01", azure_deployment="bee"
    )
    instrument(client, kept, provider="hive")
    await client.chat.completions.create(model="good", messages=MESSAGES)
    assert provider.requests[-1].path == "/openai/deployments/bee/chat/completions"
    assert only(kept)["provider"] == "hive"
    await client.close()


# With others.


async def test_a_call_that_is_claimed_is_not_told(clients: Clients, kept: Kept) -> None:
    with claim(kept):
        await clients.awaited.chat.completions.create(model="good", messages=MESSAGES)
    assert not kept.events


async def test_a_model_call_around_it_is_one_event(clients: Clients) -> None:
    with capture() as events:
        async with Batcher(api_key="k", project="p") as batcher:
            instrument(clients.awaited, batcher)
            async with batcher.model_call(provider="mine", metadata={"a": 1}) as call:
                await clients.awaited.chat.completions.create(model="good", messages=MESSAGES)
                call.cost = 0.5
            (event,) = events
            assert event.provider == "mine"
            assert event.cost == 0.5
            assert event.response["content"] == TEXT
            assert event.messages == MESSAGES
            assert event.model == "good-2026"
            assert event.usage == USAGE
            assert event.metadata["a"] == 1
            assert event.metadata["response_id"]


async def test_of_several_calls_in_a_model_call_the_last_is_its_own(clients: Clients) -> None:
    with capture() as events:
        async with Batcher(api_key="k", project="p") as batcher:
            instrument(clients.awaited, batcher)
            async with batcher.model_call(model="mine"):
                with suppress(openai.RateLimitError):
                    await clients.awaited.chat.completions.create(model="fails-429", messages=MESSAGES)
                await clients.awaited.chat.completions.create(model="good", messages=MESSAGES)
        assert [(event["model"], "error" in event, "response" in event) for event in events] == [
            ("fails-429", True, False),
            ("mine", False, True),
        ]


async def test_a_decorated_stream_claims_its_own_calls_and_not_its_readers(clients: Clients) -> None:
    with capture() as events:
        async with Batcher(api_key="k", project="p") as batcher:
            instrument(clients.awaited, batcher)

            @batcher.model_call(model="mine")
            async def tokens() -> AsyncIterator[str]:
                stream = await clients.awaited.chat.completions.create(
                    model="good", messages=MESSAGES, stream=True
                )
                async for chunk in stream:
                    yield chunk.choices[0].delta.content or ""

            count = 0
            async with aclosing(tokens()) as parts:  # type: ignore[type-var]  # a generator, decorated
                async for _ in parts:
                    count += 1
                    if count == 2:
                        await clients.awaited.chat.completions.create(model="good-2", messages=MESSAGES)
        assert [(event["model"], event["response"]) for event in events][1:] == [("mine", TEXT)]
        assert events[0]["model"] == "good-2-2026"
        assert len(events) == 2


async def test_without_a_batcher_the_one_started_last_is_told(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(producer, "_started", None)
    monkeypatch.setattr(instrumented, "_has_warned", False)
    client = instrument(openai.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="k"))
    for _ in range(2):
        await client.chat.completions.create(model="good", messages=MESSAGES)
    (record,) = caplog.records
    assert "no batcher has been started" in record.getMessage()
    with capture() as events:
        async with Batcher(api_key="k", project="first") as first, Batcher(api_key="k", project="second"):
            await client.chat.completions.create(model="good", messages=MESSAGES)
            async with first.invocation():
                await client.chat.completions.create(model="good", messages=MESSAGES)
        blocking = BlockingBatcher(api_key="k", project="third")
        await client.chat.completions.create(model="good", messages=MESSAGES)
        blocking.close()
        del blocking, first
        gc.collect()
    assert [event["project"] for event in events] == ["second", "first", "third"]
    await client.close()


async def test_the_session_is_that_of_the_calls_beginning(clients: Clients) -> None:
    with capture() as events:
        async with Batcher(api_key="k", project="p") as batcher:
            instrument(clients.awaited, batcher)
            with batcher.session(session_id="s1"):
                stream = await clients.awaited.chat.completions.create(
                    model="good", messages=MESSAGES, stream=True
                )
            async for _ in stream:
                pass
    assert [event["session_id"] for event in events] == ["s1"]


async def test_messages_that_change_later_are_told_as_they_were(clients: Clients, kept: Kept) -> None:
    messages = list(MESSAGES)
    stream = await clients.awaited.chat.completions.create(model="good", messages=messages, stream=True)
    messages.append({"role": "assistant", "content": "later"})
    async for _ in stream:
        pass
    assert only(kept)["messages"] == MESSAGES


# What providers and programs do, and a tester would not think of.


async def test_a_call_that_is_made_because_another_failed_is_told_though_it_fails_too(
    clients: Clients, kept: Kept
) -> None:
    try:
        await clients.awaited.chat.completions.create(model="fails-500", messages=MESSAGES)
    except openai.InternalServerError:
        with pytest.raises(openai.NotFoundError):
            await clients.awaited.chat.completions.create(model="fails-404", messages=MESSAGES)
        with pytest.raises(openai.NotFoundError):
            clients.blocking.chat.completions.create(model="fails-404", messages=MESSAGES)
    assert [event["model"] for event in kept.events] == ["fails-500", "fails-404", "fails-404"]
    assert all(event["error"] for event in kept.events)


async def test_a_provider_that_gives_the_same_id_to_many_answers(
    clients: Clients, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(body: dict[str, Any]) -> dict[str, Any]:
        return fake_answers.chat(body) | {"id": "chatcmpl-123"}

    monkeypatch.setattr(fake_provider, "_ROUTES", {"/chat/completions": (whole, None)})
    for _ in range(3):
        await clients.awaited.chat.completions.create(model="good", messages=MESSAGES)
    assert len(kept.events) == 3


@pytest.mark.parametrize("content_type", ["", "text/plain", "Text/Event-Stream; charset=utf-8"])
async def test_a_stream_that_is_not_called_one(
    clients: Clients, kept: Kept, monkeypatch: pytest.MonkeyPatch, content_type: str
) -> None:
    monkeypatch.setattr(fake_provider, "STREAM_TYPE", content_type)
    texts: list[str] = []
    async for chunk in await clients.awaited.chat.completions.create(
        model="good", messages=MESSAGES, stream=True
    ):
        texts += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(texts) == TEXT
    event = only(kept)
    assert event["response"]["content"] == TEXT
    assert "incomplete" not in event["metadata"]


async def test_a_client_whose_request_is_a_plain_function(provider: FakeProvider, kept: Kept) -> None:
    class Mine(openai.AsyncOpenAI):  # type: ignore[misc]  # Any here: optional
        def request(self, *arguments: Any, **named: Any) -> Any:
            return super().request(*arguments, **named)

    async with instrument(Mine(base_url=f"{provider.url}/v1", api_key="k"), kept) as client:
        await client.chat.completions.create(model="good", messages=MESSAGES)
        assert only(kept)["response"]["content"] == TEXT
        kept.events.clear()
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="fails-404", messages=MESSAGES)
        assert only(kept)["error"].startswith("NotFoundError")


async def test_what_only_looks_like_a_client_is_awaited_if_its_request_is(kept: Kept) -> None:
    class Options:
        url, method, json_data = "/chat/completions", "post", {"model": "m", "messages": MESSAGES}

    class Stand:
        def with_options(self) -> "Stand":
            return self

        copy = with_options

        async def request(self, _kind: object, _options: Options) -> Any:
            return {"choices": [{"message": {"content": TEXT}}]}

    assert await instrument(Stand(), kept).request(object, Options())
    assert only(kept)["response"]["content"] == TEXT


def test_a_plain_copy_of_a_client_is_one_of_its_own(provider: FakeProvider, kept: Kept) -> None:
    client = instrument(openai.OpenAI(base_url=f"{provider.url}/v1", api_key="k"), kept)
    twin = copy.copy(client)
    twin.api_key = "another"
    twin.chat.completions.create(model="good", messages=MESSAGES)
    assert provider.requests[-1].headers["Authorization"] == "Bearer another"
    assert not kept.events
    instrument(twin, kept).chat.completions.create(model="good", messages=MESSAGES)
    assert only(kept)["model"] == "good-2026"
    uninstrument(client)
    assert "__getstate__" not in vars(client)
    client.close()


def test_a_client_with_a_state_of_its_own_is_copied_by_that(kept: Kept) -> None:
    class Stated(openai.OpenAI):  # type: ignore[misc]  # Any here: optional
        def __getstate__(self) -> Any:
            return None

    with instrument(Stated(api_key="k"), kept) as client:
        assert vars(copy.copy(client)) == {}


def test_a_stream_that_is_open_at_the_end_of_the_program(provider: FakeProvider) -> None:
    program = f"""
import openai
from honeyhive_batcher import BlockingBatcher
from honeyhive_batcher.integrations.openai import instrument
batcher = BlockingBatcher(
    api_key="k", project="p", test_mode=True, before_send=lambda event: print(event["metadata"]) or event
)
batcher.start()
client = instrument(openai.OpenAI(base_url="{provider.url}/v1", api_key="k"), batcher)
stream = client.chat.completions.create(model="hangs", messages=[], stream=True)
next(stream)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "'incomplete': True" in ended.stdout
    assert not ended.stderr


# Its own failures.


async def test_a_request_of_another_shape_is_the_clients_business(
    clients: Clients, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "_told", set())
    monkeypatch.setattr(producer, "_started", None)
    for batcher in (kept, None):
        kept.events.clear()
        instrument(clients.blocking, batcher)
        with pytest.raises(AttributeError):
            clients.blocking.request(object, None)
        assert kept.events == ([None] if batcher else [])


async def test_its_own_failure_is_counted_and_reaches_nobody(
    clients: Clients, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "_told", set())
    for body in ({"model": "good", "messages": 5}, {"model": "good", "prompt": "x"}):
        kept.events.clear()
        path = "/chat/completions" if "messages" in body else "/completions"
        await clients.awaited.post(path, cast_to=object, body=body)
        assert len(kept.events) == 1
    answers: list[Any] = [
        {"choices": 5},
        {"choices": [5]},
        {"choices": [{"message": 5}]},
        [],
        5,
        None,
        {"choices": None, "usage": 5, "id": 5},
    ]
    for answer in answers:
        kept.events.clear()
        monkeypatch.setattr(
            fake_provider, "_ROUTES", {"/chat/completions": (lambda _body, answer=answer: answer, None)}
        )
        with suppress(openai.OpenAIError, TypeError, AttributeError):
            await clients.awaited.chat.completions.create(model="good", messages=MESSAGES)
        assert len(kept.events) == 1, answer


@pytest.mark.parametrize(
    "events",
    [
        ["data: 5\n\n"],
        ["data: {\n\n"],
        ['data: {"choices": 5}\n\n'],
        ['data: {"choices": [{"index": "x", "delta": {"content": "a"}}]}\n\n'],
        ['data: {"choices": [{"delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}\n\n'],
        [": a comment\n\n", "retry: 5\n\n", "data: [DONE]\n\n"],
        ["data: [DONE]\n\n"],
        [],
    ],
)
async def test_a_strange_stream_is_one_event_or_one_failure(
    clients: Clients, kept: Kept, monkeypatch: pytest.MonkeyPatch, events: list[str]
) -> None:
    monkeypatch.setattr(fake_provider, "_ROUTES", {"/chat/completions": (None, lambda _body: iter(events))})
    plain = openai.AsyncOpenAI(base_url=clients.awaited.base_url, api_key="k", max_retries=0)

    async def read(client: openai.AsyncOpenAI) -> tuple[list[str], str]:
        parts: list[str] = []
        try:
            stream = await client.chat.completions.create(model="good", messages=MESSAGES, stream=True)
            parts.extend([part.to_json() async for part in stream])
        except Exception as error:
            return parts, type(error).__name__
        return parts, ""

    assert await read(clients.awaited) == await read(plain)
    gc.collect()
    assert len(kept.events) == 1
    await plain.close()
