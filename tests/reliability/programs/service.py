"""A web service that logs each request it answers: `service:app`, for any ASGI server. With `EARLY` in the
environment it pushes an event while it is imported, which under `--preload` is in the parent of all workers.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from honeyhive_batcher import Batcher

batcher = Batcher.from_env(flush_interval=0.2)
if "EARLY" in os.environ:
    batcher.push({"model_name": "early"})

Message = dict[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await batcher.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await batcher.aclose()
        await send({"type": "lifespan.shutdown.complete"})
        return
    name = scope["path"].removeprefix("/")
    if name == "hang":
        await asyncio.sleep(3600)
    await asyncio.sleep(0.002)
    batcher.push({"model_name": name})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"%4d" % (os.getpid() % 10_000)})
