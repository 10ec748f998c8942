"""A test suite of a web service: a loop for each test, one batcher at module level, and a `TestClient` that
runs no lifespan. Run by pytest with every warning an error.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from honeyhive_batcher import Admission, Batcher

batcher = Batcher.from_env(flush_interval=60)


async def ask(request: Request) -> PlainTextResponse:
    admission = batcher.push({"model_name": request.query_params["name"]})
    return PlainTextResponse(admission.value)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with batcher:
        yield


app = Starlette(routes=[Route("/ask", ask)], lifespan=lifespan)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
def closed_at_the_end() -> Iterator[None]:
    yield
    asyncio.run(batcher.aclose())


def test_a_client_without_lifespan() -> None:
    """Nothing starts the batcher: it holds what is pushed, and the service answers all the same."""
    assert TestClient(app).get("/ask?name=held").text == "accepted"
    assert batcher.statistics().held == 1


def test_a_client_with_lifespan() -> None:
    with TestClient(app) as client:
        assert client.get("/ask?name=lifespan").text == "accepted"
    assert batcher.statistics().delivered == 2


@pytest.mark.anyio
@pytest.mark.parametrize("number", range(3))
async def test_in_a_loop_of_its_own(number: int) -> None:
    async with batcher:
        assert batcher.push({"model_name": f"loop {number}"})


@pytest.mark.anyio
async def test_that_forgets_to_close() -> None:
    await batcher.start()
    assert batcher.push({"model_name": "forgotten"})


@pytest.mark.anyio
async def test_after_one_that_forgot() -> None:
    async with batcher:
        assert batcher.push({"model_name": "after"})


def test_a_client_without_lifespan_after_a_close() -> None:
    client = TestClient(app)
    assert client.get("/ask?name=refused").text == Admission.CLOSED.value
