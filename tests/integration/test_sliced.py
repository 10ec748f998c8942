"""Large bodies, which are written in slices."""

import asyncio
import tracemalloc
from typing import Any

import pytest
from aiohttp import web

from honeyhive_batcher import Batcher
from honeyhive_batcher.config import EndpointSettings
from honeyhive_batcher.core.model import Response
from honeyhive_batcher.core.request import Request
from honeyhive_batcher.runtime.sliced import SLICE, SlicedBody
from honeyhive_batcher.runtime.transport import AiohttpTransport
from honeyhive_batcher.testing import collector

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]


class Server:
    """Keeps the bodies that come, and the lengths that their heads promise."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.lengths: list[int | None] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Take a body."""
        self.lengths.append(request.content_length)
        self.bodies.append(await request.read())
        return web.json_response({})


async def send(request: Request) -> tuple[Server, Any]:
    server = Server()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/p", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    transport = AiohttpTransport(
        EndpointSettings(api_key="k", base_url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    )
    await transport.open()
    try:
        return server, await transport.send(request)
    finally:
        await transport.close()
        await runner.cleanup()


@pytest.mark.parametrize("size", [1, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE, 4_000_000])
@pytest.mark.parametrize("count", [1, 7])
async def test_all_of_a_body_arrives_with_its_length(size: int, count: int) -> None:
    parts = tuple(bytes([97 + place]) * (size // count) for place in range(count))
    made = Request(
        method="POST", path="/p", opening=b"[", parts=parts, ending=b"]", max_reply_bytes=100, plain=True
    )
    server, reply = await send(made)
    assert reply == Response(status=200, body=b"{}")
    assert server.bodies == [made.body]
    assert server.lengths == [made.size]


async def test_the_loop_turns_between_slices() -> None:
    written: list[Any] = []

    class Writer:
        async def write(self, piece: Any) -> None:
            written.append(piece)

    made = Request(method="POST", path="/", parts=(b"a" * SLICE,) * 5, max_reply_bytes=1)
    body = SlicedBody(made)
    assert body.size == made.size
    assert body.decode() == made.body.decode()
    seen: list[int] = []

    writing = asyncio.ensure_future(body.write_with_length(Writer(), None))  # type: ignore[arg-type]  # its part
    while not writing.done():
        seen.append(len(written))
        await asyncio.sleep(0)
    assert b"".join(written) == made.body
    assert len(written) >= 5
    assert set(seen) == set(range(len(written) + 1))


async def test_a_large_body_is_never_held_twice() -> None:
    class Gone:
        async def write(self, piece: Any) -> None:
            """Take a piece, and keep nothing of it."""

    body = SlicedBody(Request(method="POST", path="/", parts=(b"a" * 10_000,) * 400, max_reply_bytes=1))
    tracemalloc.start()
    try:
        await body.write(Gone())  # type: ignore[arg-type]  # its part
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert SLICE / 2 < most < 3 * SLICE
    assert body.size == 4_000_399


async def test_a_large_batch_is_one_request() -> None:
    event = {
        "model": "gpt-4o",
        "provider": "openai",
        "messages": [],
        "usage": {},
        "duration": 1,
        "project": "p",
    }
    async with (
        collector() as hive,
        Batcher(**hive.settings(), flush_interval=60, max_batch_events=1000) as batcher,
    ):
        for number in range(390):
            batcher.push({**event, "response": f"{number:010}" * 1000})
        assert (await batcher.flush()).delivered == 390
        (stored,) = hive.requests()
        assert stored.bytes > 3_900_000
        assert sorted(each.event["response"][:10] for each in hive.events()) == [
            f"{n:010}" for n in range(390)
        ]
