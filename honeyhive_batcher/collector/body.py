"""Reading a request body without ever holding more than the ceiling."""

import zlib
from collections.abc import AsyncIterator
from typing import Final

from honeyhive_batcher.collector.refusal import RefusedError

MAX_BODY_BYTES: Final = 5_000_000
"""HoneyHive's troubleshooting page: "Payload too large - Request exceeds 5MB limit"."""

# 16 asks zlib for the gzip wrapper, 15 for the largest window, which every gzip stream fits in.
_GZIP_WINDOW: Final = 16 + 15


class WireCount:
    """Bytes of one body that came over the wire, counted while they come."""

    def __init__(self) -> None:
        self.bytes = 0


async def read_body(chunks: AsyncIterator[bytes], declared: int | None, count: WireCount) -> bytes:
    """Read a body as it is on the wire, adding its bytes to `count`.

    Args:
        chunks: the body as it arrives.
        declared: Content-Length, if the client gave one; a lie about it changes nothing.
        count: told how much arrived, also when this raises.

    Raises:
        RefusedError: with status 413, as soon as the ceiling is passed; the rest is never read.
    """
    if declared is not None and declared > MAX_BODY_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    async for chunk in chunks:
        count.bytes += len(chunk)
        if count.bytes > MAX_BODY_BYTES:
            raise _too_large()
        parts.append(chunk)
    return b"".join(parts)


def decompressed(body: bytes, encoding: str) -> bytes:
    """Undo a Content-Encoding; the ceiling holds for the result as well.

    Raises:
        RefusedError: 415 for an encoding other than gzip, 400 for a broken stream, 413 for too much.
    """
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise RefusedError(415, f"Content-Encoding: {encoding} is not supported")
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        # `max_length` stops a bomb before it goes off: one byte over the ceiling is all it ever makes.
        result = stream.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as broken:
        raise RefusedError(400, f"body: broken gzip: {broken}") from None
    if len(result) > MAX_BODY_BYTES:
        raise _too_large()
    if not stream.eof:
        raise RefusedError(400, "body: broken gzip: it ends too early")
    if stream.unused_data:
        raise RefusedError(400, "body: broken gzip: something follows its end")
    return result


def _too_large() -> RefusedError:
    return RefusedError(413, f"Payload too large: request exceeds the 5 MB limit ({MAX_BODY_BYTES} bytes)")
