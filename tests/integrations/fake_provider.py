"""A provider of language models on a random port of this machine, for real clients to talk to.

It speaks chat completions, completions, responses and embeddings (OpenAI's, also below Azure's paths) and
messages (Anthropic's), whole and streamed. The name of the model says how it behaves:

    "good"        answers
    "fails-429"   answers HTTP 429, every time; any status may stand there
    "flaky-429"   answers HTTP 429 once, then well
    "hangs"       streams half of its answer, then nothing until the client leaves; unstreamed: nothing at all
    "breaks"      streams half of its answer, then cuts the connection
    "garbles"     streams half of its answer, then an error event
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web
from anyio.from_thread import start_blocking_portal
from msgspec import Struct

from tests.integrations import fake_answers as answers

_CHAT = (answers.chat, answers.chat_stream)
_ROUTES: dict[str, tuple[Any, Any]] = {
    "/chat/completions": _CHAT,
    "/completions": (answers.completion, answers.completion_stream),
    "/responses": (answers.response, answers.response_stream),
    "/messages": (answers.message, answers.message_stream),
    "/embeddings": (answers.embeddings, None),
}
STREAM_TYPE = "text/event-stream"
_PREFIXES = ("", "/v1", "/openai/deployments/{deployment}", "/openai/v1")


class Received(Struct, frozen=True):
    """A request that came."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


class FakeProvider:
    """What came, and where to send it."""

    def __init__(self) -> None:
        self.url = ""
        """`http://127.0.0.1:port`: Anthropic's `base_url`; OpenAI's is this and `/v1`."""
        self.requests: list[Received] = []
        self.between = 0.0
        """Seconds before each streamed event."""
        self._has_failed: set[str] = set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        body = await request.json()
        self.requests.append(Received(request.path, body, dict(request.headers)))
        behaviour, _, rest = str(body["model"]).partition("-")
        if behaviour == "fails" or (behaviour == "flaky" and body["model"] not in self._has_failed):
            self._has_failed.add(body["model"])
            return _failure(int(rest.partition("-")[0]))
        whole, streamed = next(
            answer for ending, answer in _ROUTES.items() if request.path.endswith(ending)
        )  # "/chat/completions" stands before "/completions"
        if not body.get("stream"):
            if behaviour == "hangs":
                await asyncio.Event().wait()
            return web.json_response(whole(body), headers={"x-request-id": "req_1"})
        return await self._stream(request, list(streamed(body)), behaviour)

    async def _stream(self, request: web.Request, events: list[str], behaviour: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": STREAM_TYPE, "x-request-id": "req_1"})
        await response.prepare(request)
        half = len(events) // 2
        for place, event in enumerate(events):
            if place == half and behaviour == "hangs":
                await asyncio.Event().wait()  # aiohttp cancels this when the client leaves
            if place == half and behaviour == "breaks":
                assert request.transport is not None
                request.transport.abort()
                break
            if place == half and behaviour == "garbles":
                error = {"type": "overloaded_error", "message": "too many bees"}
                await response.write(
                    f"event: error\ndata: {json.dumps({'type': 'error', 'error': error})}\n\n".encode()
                )
                break
            if self.between:
                await asyncio.sleep(self.between)
            await response.write(event.encode())
        return response


def _failure(status: int) -> web.Response:
    error = {"message": "too many bees", "type": "rate_limit_error", "param": None, "code": "busy"}
    # The clients' own back-off is half a second and more: too long for a test.
    headers = {"retry-after-ms": "1", "x-request-id": "req_1"}
    return web.json_response({"type": "error", "error": error}, status=status, headers=headers)


@asynccontextmanager
async def provider() -> AsyncGenerator[FakeProvider, None]:
    """Run a provider in this event loop."""
    fake = FakeProvider()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    for prefix in _PREFIXES:
        for ending in _ROUTES:
            app.router.add_post(prefix + ending, fake.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield fake
    finally:
        await runner.cleanup()


@contextmanager
def provider_in_thread() -> Generator[FakeProvider, None, None]:
    """Run a provider in a thread: for clients that block, and for those in any event loop."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(provider()) as fake:
        yield fake
