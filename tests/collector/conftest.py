"""A collector, a client with a key, and events that the contract allows."""

import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from honeyhive_batcher.testing import Collector, collector

Call = Callable[..., Awaitable[tuple[int, Any]]]
Make = Callable[..., dict[str, Any]]


def classic_event(**changes: Any) -> dict[str, Any]:
    """The seven fields that HoneyHive's first documentation requires, with changes; `...` leaves one out."""
    event = {
        "project": "shop",
        "model": "gpt-4o",
        "provider": "openai",
        "messages": [{"role": "user", "content": "Hello, wörld!"}],
        "response": {"role": "assistant", "content": "Hi"},
        "duration": 42,
        "usage": {"total_tokens": 20},
        **changes,
    }
    return {name: value for name, value in event.items() if value is not ...}


@pytest.fixture
def event() -> Make:
    return classic_event


@pytest.fixture(scope="session")
def corpus() -> list[bytes]:
    """Lines of the corpus, as bytes."""
    path = Path(__file__).parent.parent / "data" / "model_events.jsonl"
    return path.read_bytes().splitlines()


@pytest.fixture
async def hive(anyio_backend: str) -> AsyncIterator[Collector]:
    async with collector() as hive:
        yield hive


@pytest.fixture
async def client(hive: Collector) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": "Bearer hh_secret"}
    async with aiohttp.ClientSession(hive.url, headers=headers) as session:
        yield session


@pytest.fixture
def post(client: aiohttp.ClientSession) -> Call:
    """Post a batch of events, or another body, and return status and decoded answer."""

    async def post(*events: Any, body: Any = None, **top: Any) -> tuple[int, Any]:
        if body is None:
            body = {"model_events": list(events), **top}
        async with client.post("/events/model/batch", json=body) as response:
            return response.status, await response.json()

    return post


@pytest.fixture
def post_bytes(client: aiohttp.ClientSession) -> Call:
    """Post bytes as a batch, and return status and decoded answer."""

    async def post_bytes(body: bytes | AsyncIterator[bytes], **headers: str) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"} | headers
        # aiohttp warns when it is given large bytes.
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        async with client.post("/events/model/batch", data=data, headers=headers) as response:
            return response.status, json.loads(await response.read())

    return post_bytes


@pytest.fixture
def put(client: aiohttp.ClientSession) -> Call:
    """Put an update, and return status and decoded answer."""

    async def put(**body: Any) -> tuple[int, Any]:
        async with client.put("/events", json=body) as response:
            return response.status, await response.json()

    return put
