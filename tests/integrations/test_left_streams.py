"""Many streams of a real client, left in every way, with and without the adapter."""

import asyncio
import functools
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from honeyhive_batcher.integrations.openai import instrument
from tests.integrations.fake_provider import FakeProvider, provider_in_thread
from tests.integrations.kept import Kept

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::ResourceWarning")]

MESSAGES: list[Any] = [{"role": "user", "content": "What is in a hive?"}]
WAYS = ("read", "break", "drop", "raise", "within", "cancel", "close")
ROUNDS = 12


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeProvider]:
    with provider_in_thread() as fake:
        yield fake


async def leave(client: openai.AsyncOpenAI, way: str, model: str) -> None:
    stream = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    if way == "close":
        await stream.close()
    if way == "within":
        async with stream:
            async for _ in stream:
                break
    if way == "raise":
        try:
            async for _ in stream:
                raise ZeroDivisionError
        except ZeroDivisionError:
            return
    if way in ("read", "break", "cancel"):
        async for _ in stream:
            if way == "break":
                break
            await asyncio.sleep(0)


async def leave_many(client: openai.AsyncOpenAI) -> int:
    """Return how many streams there were."""
    tasks: list[asyncio.Task[None]] = []
    for number in range(ROUNDS):
        for way in WAYS:
            model = "hangs" if number % 2 and way != "read" else "good"
            task = asyncio.ensure_future(leave(client, way, model))
            tasks.append(task)
            if way == "cancel":
                await asyncio.sleep(0.02)
                task.cancel()
            await asyncio.wait((task,))
        gc.collect()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()
    for _ in range(5):
        gc.collect()
        await asyncio.sleep(0.02)
    return ROUNDS * len(WAYS)


def _hear(hear: Callable[[Any], None], _loop: asyncio.AbstractEventLoop, context: Any) -> None:
    hear(context)


async def test_each_is_one_event_and_the_host_hears_nothing_of_it(provider: FakeProvider) -> None:
    kept = Kept()
    heard: dict[bool, list[Any]] = {False: [], True: []}
    for is_instrumented in (False, True):
        hear = heard[is_instrumented].append
        asyncio.get_running_loop().set_exception_handler(functools.partial(_hear, hear))
        client = openai.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="k", max_retries=0)
        if is_instrumented:
            instrument(client, kept)
        count = await leave_many(client)
        await client.close()
        assert len(kept.events) == is_instrumented * count
    assert not heard[True]
    assert None not in kept.events
    # One that was cancelled before its answer began, as on a busy machine, has no metadata.
    ends = Counter("incomplete" in event.get("metadata", ()) for event in kept.events)
    assert ends[False] >= ROUNDS
    assert ends[True] >= 4 * ROUNDS
