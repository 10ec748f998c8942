"""The adapter with the real client of Anthropic."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import anthropic
import pydantic
import pytest

from honeyhive_batcher import ConfigError
from honeyhive_batcher.integrations.anthropic import instrument, uninstrument
from tests.integrations.fake_answers import ARGUMENTS, STRUCTURED, TEXT, TOOL
from tests.integrations.fake_provider import FakeProvider, provider_in_thread
from tests.integrations.kept import Kept

pytestmark = pytest.mark.anyio

MESSAGES: list[Any] = [{"role": "user", "content": "What is in a hive?"}]
ASKED: dict[str, Any] = {"model": "good", "messages": MESSAGES, "max_tokens": 99}
TOOLS: list[Any] = [{"name": TOOL, "input_schema": {"type": "object"}}]
USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 7,
    "total_tokens": 26,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_creation_tokens": 3},
}


class Honey(pydantic.BaseModel):
    answer: str


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with provider_in_thread() as fake:
        yield fake


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
async def client(provider: FakeProvider, kept: Kept) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="k", max_retries=0) as made:
        yield instrument(made, kept)


def only(kept: Kept) -> dict[str, Any]:
    gc.collect()
    (event,) = kept.events
    assert event is not None, "the adapter failed"
    return dict(event)


async def test_a_message_is_one_event(client: anthropic.AsyncAnthropic, kept: Kept) -> None:
    answer = await client.messages.create(
        **ASKED, system="Be short.", metadata={"user_id": "bee"}, stop_sequences=["."]
    )
    assert type(answer) is anthropic.types.Message
    event = only(kept)
    duration = event.pop("duration")
    assert event.pop("end_time") == event.pop("start_time") + duration
    assert event == {
        "event_type": "model",
        "event_name": "messages",
        "model": "good-2026",
        "provider": "anthropic",
        "messages": [{"role": "system", "content": "Be short."}, *MESSAGES],
        "response": {"role": "assistant", "content": TEXT, "finish_reason": "end_turn"},
        "usage": USAGE,
        "hyperparameters": {"max_tokens": 99, "stop_sequences": ["."]},
        "user_properties": {"user_id": "bee"},
        "metadata": {"response_id": answer.id},
    }


async def test_streams_are_one_event_each(client: anthropic.AsyncAnthropic, kept: Kept) -> None:
    stream = await client.messages.create(**ASKED, stream=True)
    assert type(stream) is anthropic.AsyncStream
    async for _ in stream:
        assert not kept.events
    first = only(kept)
    kept.events.clear()
    async with client.messages.stream(**ASKED) as helped:
        assert "".join([text async for text in helped.text_stream]) == TEXT
    for event in (first, only(kept)):
        assert event["response"] == {"role": "assistant", "content": TEXT, "finish_reason": "end_turn"}
        assert event["usage"] == USAGE
        assert event["model"] == "good-2026"
        assert set(event["metadata"]) == {"response_id"}


async def test_a_call_of_a_tool_whole_and_streamed(client: anthropic.AsyncAnthropic, kept: Kept) -> None:
    for is_streamed in (False, True):
        kept.events.clear()
        answer: Any = await client.messages.create(
            **ASKED, tools=TOOLS, tool_choice={"type": "auto"}, stream=is_streamed
        )
        if is_streamed:
            async for _ in answer:
                pass
        event = only(kept)
        (call,) = event["response"]["tool_calls"]
        assert (call["id"], call["function"]["name"]) == ("toolu_1", TOOL)
        assert json.loads(call["function"]["arguments"]) == json.loads(ARGUMENTS)
        assert event["response"]["content"] == TEXT
        assert event["response"]["finish_reason"] == "tool_use"
        assert event["tools"] == TOOLS
        assert event["tool_choice"] == {"type": "auto"}


async def test_what_is_parsed_stays_the_users_own(client: anthropic.AsyncAnthropic, kept: Kept) -> None:
    parsed = await client.messages.parse(**ASKED, output_format=Honey)
    assert parsed.parsed_output == Honey(answer="honey")
    event = only(kept)
    assert event["response"]["content"] == STRUCTURED
    assert event["response_format"]["type"] == "json_schema"


async def test_raw_and_blocking(client: anthropic.AsyncAnthropic, provider: FakeProvider, kept: Kept) -> None:
    raw = await client.messages.with_raw_response.create(**ASKED)
    parsed: Any = raw.parse()
    assert (await parsed if asyncio.iscoroutine(parsed) else parsed).content[0].text == TEXT
    assert only(kept)["response"]["content"] == TEXT
    kept.events.clear()
    with anthropic.Anthropic(base_url=provider.url, api_key="k", max_retries=0) as blocking:
        instrument(blocking, kept)
        blocking.messages.create(**ASKED)
        with blocking.messages.stream(**ASKED) as stream:
            assert stream.get_final_text() == TEXT
        with blocking.messages.stream(**ASKED) as stream:
            next(iter(stream.text_stream))
        blocking.beta.messages.create(**ASKED)
    gc.collect()
    assert [event["response"]["content"] for event in kept.events[:2]] == [TEXT, TEXT]
    assert kept.events[2]["metadata"]["incomplete"] is True
    assert TEXT.startswith(kept.events[2]["response"]["content"])
    assert kept.events[3]["response"]["content"] == TEXT
    assert len(kept.events) == 4


@pytest.mark.parametrize("leave", ["break", "close", "drop", "cancel"])
async def test_a_stream_that_is_left(client: anthropic.AsyncAnthropic, kept: Kept, leave: str) -> None:
    stream = await client.messages.create(**ASKED | {"model": "hangs"}, stream=True)
    if leave == "break":
        async for event in stream:
            if event.type == "content_block_delta":
                break
        await stream.close()
    if leave == "close":
        await stream.close()
    if leave == "cancel":
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                async for _ in stream:
                    pass
    del stream
    told = only(kept)
    assert told["metadata"]["incomplete"] is True
    assert ("response" in told) == (leave in ("break", "cancel"))
    if "response" in told:
        assert told["response"]["content"]
        assert TEXT.startswith(told["response"]["content"])
        assert "finish_reason" not in told["response"]


async def test_errors(client: anthropic.AsyncAnthropic, kept: Kept) -> None:
    with pytest.raises(anthropic.RateLimitError):
        await client.messages.create(**ASKED | {"model": "fails-429"})
    assert only(kept)["error"].startswith("RateLimitError: Error code: 429")
    for model in ("garbles", "breaks"):
        kept.events.clear()
        stream = await client.messages.create(**ASKED | {"model": model}, stream=True)
        with pytest.raises(Exception, match=r"."):
            async for _ in stream:
                pass
        event = only(kept)
        assert "too many bees" in event["error"] or "incomplete chunked read" in event["error"]
        assert event["metadata"]["incomplete"] is True
        assert TEXT.startswith(event["response"]["content"])


async def test_what_is_no_model_call_is_not_told(client: anthropic.AsyncAnthropic, kept: Kept) -> None:
    with suppress(anthropic.NotFoundError):
        await client.messages.count_tokens(model="good", messages=MESSAGES)
    assert not kept.events


async def test_copies_and_removal(client: anthropic.AsyncAnthropic, kept: Kept) -> None:
    copy = client.with_options(timeout=3)
    await copy.messages.create(**ASKED)
    assert len(kept.events) == 1
    uninstrument(client)
    await client.messages.create(**ASKED)
    assert len(kept.events) == 1
    await uninstrument(copy).messages.create(**ASKED)
    assert len(kept.events) == 1


def test_what_is_no_client_is_refused(kept: Kept) -> None:
    with pytest.raises(ConfigError, match="Expected a client, got int"):
        instrument(5, kept)


def test_a_cloud_is_the_provider(kept: Kept) -> None:
    class AnthropicBedrock(anthropic.Anthropic):  # type: ignore[misc]  # Any: optional
        """Its own class needs a cloud's package."""

    for made, name in ((AnthropicBedrock, "bedrock"), (anthropic.Anthropic, "anthropic")):
        kept.events.clear()
        with made(base_url="http://127.0.0.1:1", api_key="k", max_retries=0) as client:
            instrument(client, kept)
            with pytest.raises(anthropic.APIConnectionError):
                client.messages.create(**ASKED)
        assert only(kept)["provider"] == name
