"""The provider that clients are tried against answers as providers do."""

import json
from typing import Any

import aiohttp
import pytest

from tests.integrations import fake_answers
from tests.integrations.fake_provider import FakeProvider, provider

pytestmark = pytest.mark.anyio


async def ask(fake: FakeProvider, path: str, body: dict[str, Any]) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.post(fake.url + path, json=body) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v1/chat/completions", "choices.0.message.content"),
        ("/v1/completions", "choices.0.text"),
        ("/v1/responses", "output.0.content.0.text"),
        ("/v1/messages", "content.0.text"),
        ("/openai/deployments/bee/chat/completions", "choices.0.message.content"),
    ],
)
async def test_it_answers_whole_and_in_pieces(path: str, text: str) -> None:
    async with provider() as fake:
        status, whole = await ask(fake, path, {"model": "good"})
        found: Any = json.loads(whole)
        for key in text.split("."):
            found = found[int(key) if key.isdigit() else key]
        assert (status, found) == (200, fake_answers.TEXT)
        status, streamed = await ask(fake, path, {"model": "good", "stream": True})
        assert status == 200
        assert streamed.count("data: ") > 6
        assert [request.path for request in fake.requests] == [path, path]


async def test_it_fails_as_the_name_of_the_model_says() -> None:
    async with provider() as fake:
        path = "/v1/chat/completions"
        assert [(await ask(fake, path, {"model": "flaky-429"}))[0] for _ in range(3)] == [429, 200, 200]
        assert [(await ask(fake, path, {"model": "fails-503"}))[0] for _ in range(2)] == [503, 503]
        with pytest.raises(aiohttp.ClientError):
            await ask(fake, path, {"model": "breaks", "stream": True})
        _, streamed = await ask(fake, path, {"model": "garbles", "stream": True})
        assert "too many bees" in streamed
