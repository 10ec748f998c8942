"""Streams that a program has left and never closed, when their batcher closes."""

import gc
import logging
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from honeyhive_batcher import Batcher, BlockingBatcher, unfinished
from honeyhive_batcher.integrations.openai import instrument
from honeyhive_batcher.testing import Collector, collector_in_thread
from tests.integrations.fake_answers import TEXT
from tests.integrations.fake_provider import FakeProvider, provider_in_thread

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::ResourceWarning")]

CALL: Any = {
    "model": "hangs",
    "messages": [{"role": "user", "content": "What is in a hive?"}],
    "stream": True,
}


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with provider_in_thread() as fake:
        yield fake


@pytest.fixture
def hive() -> Iterator[Collector]:
    with collector_in_thread() as collector:
        yield collector


@pytest.fixture(autouse=True)
def _python_collects_nothing_meanwhile() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def settings(provider: FakeProvider) -> Any:
    return {"base_url": f"{provider.url}/v1", "api_key": "k", "max_retries": 0}


def check(hive: Collector) -> None:
    (stored,) = hive.events()
    assert stored.event["metadata"]["incomplete"] is True
    assert stored.event["model"] == "hangs-2026"
    assert TEXT.startswith(stored.event["response"]["content"])
    assert "error" not in stored.event


async def test_a_stream_that_was_left_is_told_when_the_batcher_closes_and_only_then(
    provider: FakeProvider, hive: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    async with openai.AsyncOpenAI(**settings(provider)) as client:
        async with Batcher(**hive.settings(), project="Bees") as batcher:
            async with Batcher(**hive.settings()):
                stream = await instrument(client, batcher).chat.completions.create(**CALL)
                async for _ in stream:
                    break
            assert batcher.statistics().offered == 0  # it was another one that has closed
        assert batcher.statistics().delivered == 1
        await stream.close()  # that comes too late
    check(hive)
    assert batcher.statistics().offered == 1
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_a_blocking_batcher_does_the_same(provider: FakeProvider, hive: Collector) -> None:
    with openai.OpenAI(**settings(provider)) as client:
        with BlockingBatcher(**hive.settings(), project="Bees") as batcher:
            stream = instrument(client, batcher).chat.completions.create(**CALL)
            next(iter(stream))
        assert batcher.statistics().delivered == 1
        stream.close()
    check(hive)
    assert batcher.statistics().offered == 1


@pytest.mark.parametrize("way", ["read", "close", "drop"])
def test_a_stream_that_has_ended_is_kept_no_longer(provider: FakeProvider, hive: Collector, way: str) -> None:
    with (
        openai.OpenAI(**settings(provider)) as client,
        BlockingBatcher(**hive.settings(), project="Bees") as batcher,
    ):
        stream = instrument(client, batcher).chat.completions.create(**CALL | {"model": "good"})
        assert [call.batcher for call in unfinished._calls.values()].count(batcher) == 1
        if way == "read":
            assert list(stream)
        if way == "close":
            stream.close()
        del stream
        gc.collect()
        assert batcher not in [call.batcher for call in unfinished._calls.values()]
    assert batcher.statistics().delivered == 1
