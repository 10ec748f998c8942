"""A request body that is written in slices, between which the host's loop turns.

One of a megabyte that went in one go was copied twice and held the loop up for 2 ms (see `benchmarks.lag`,
with 10 KB an event). Imports aiohttp, and is imported where that is there already.
"""

import asyncio
from typing import final

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from honeyhive_batcher.core.request import Request

SLICE = 128 * 1024
"""Bytes of a slice; a body of no more is written in one go."""


@final
class SlicedBody(Payload):
    """The body of a request. It is never held in one piece."""

    _autoclose = True  # there is nothing to close

    def __init__(self, request: Request) -> None:
        super().__init__(request, content_type="application/json")
        self._size = request.size
        self._request = request

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it, no faster than the connection takes it."""
        for piece in self._request.slices(SLICE):
            await writer.write(piece)
            await asyncio.sleep(0)

    async def write_with_length(
        self,
        writer: AbstractStreamWriter,
        content_length: int | None,  # noqa: ARG002 - it is our own `size`
    ) -> None:
        """Write all of it."""
        await self.write(writer)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return all of it as text: aiohttp's interface wants that."""
        return self._request.body.decode(encoding, errors)
