"""Request bodies made smaller, in a thread: even the fastest codec would hold the loop up for milliseconds.

HoneyHive documents no `Content-Encoding`, so this is off unless it is asked for, and the engine goes back to
plain bodies when the server will not have the others.
"""

import asyncio
import concurrent.futures
import functools
import sys
from collections.abc import Callable
from typing import TypeAlias, final

from honeyhive_batcher.config import Codec
from honeyhive_batcher.core.request import Request

Compress: TypeAlias = Callable[[bytes], bytes]

_SMALLEST = 1024
"""Bytes from which a body is worth it: a smaller one is one packet in any case."""
_LARGEST_REST = 0.9
"""What has to be left at most of a body; else the server's work would buy nothing."""
_GZIP_FORMAT = 31
"""`wbits` for the gzip wrapper around the largest window."""


@final
class Compression:
    """One codec, and the thread in which it works. The thread begins with the first body."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        """The `Content-Encoding`."""
        self._compress = _gzip() if codec == "gzip" else _zstd()
        self._thread: concurrent.futures.ThreadPoolExecutor | None = None

    async def of(self, request: Request) -> bytes | None:
        """Return a body compressed, or None if that does not pay. Raises nothing but a cancellation."""
        if request.size < _SMALLEST:
            return None
        if self._thread is None:
            self._thread = concurrent.futures.ThreadPoolExecutor(1, "honeyhive_batcher.compression")
        try:
            smaller = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._compressed, request
            )
        except Exception:  # a codec that fails, or no thread to be had: the body goes as it is
            return None
        return smaller if len(smaller) <= _LARGEST_REST * request.size else None

    def _compressed(self, request: Request) -> bytes:
        return self._compress(request.body)

    def close(self) -> None:
        """Let the thread end. Nobody waits for it: what it works on takes milliseconds."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False, cancel_futures=True)


def _gzip() -> Compress:
    """Return the fastest codec that is installed, at its fastest: level 6 takes five times as long for a
    fifth less.
    """
    try:
        from isal.isal_zlib import compress  # noqa: PLC0415 - an extra
    except ImportError:
        try:
            from zlib_ng.zlib_ng import compress  # type: ignore[import-not-found,no-redef]  # noqa: PLC0415 - or
        except ImportError:
            from zlib import compress  # noqa: PLC0415 - else
    return functools.partial(compress, level=1, wbits=_GZIP_FORMAT)


def _zstd() -> Compress:
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415 - new in that version

        return functools.partial(zstd.compress, level=1)
    import zstandard  # noqa: PLC0415 - an extra

    return zstandard.ZstdCompressor(level=1).compress
