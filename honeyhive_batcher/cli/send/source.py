"""A file, a compressed file or standard input, read in a thread so that the event loop never waits for it."""

import asyncio
import contextlib
import gzip
import io
import os
import select
import stat
import threading
import zlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final, Protocol, final

from honeyhive_batcher.cli.send.lines import Line, LineSplitter

_BLOCK: Final = 64 * 1024
_BLOCKS_AHEAD: Final = 2
_GZIP_MAGIC: Final = b"\x1f\x8b"  # no JSON begins like that, so a name is not needed to tell


class ReadError(Exception):
    """The source broke off; the message says why."""


@final
class Source:
    """What is read from. `position` is how many of its `size` bytes are read, as they lie on the disk."""

    def __init__(self, path: str) -> None:
        """Open `path`, "-" for standard input.

        Raises:
            OSError: It cannot be opened.
        """
        self.name = "stdin" if path == "-" else path
        self._raw = _Counted(0 if path == "-" else path)
        status = os.fstat(self._raw.fileno())
        self.is_file = stat.S_ISREG(status.st_mode)
        self.size = status.st_size if self.is_file else None
        self.path = Path(path) if self.is_file and path != "-" else None
        """Where it lies; None for what has no name that would outlive it."""

    @property
    def position(self) -> int:
        """How many bytes are read, compressed if they are."""
        return self._raw.count

    async def lines(self, max_bytes: int) -> AsyncGenerator[list[Line], None]:
        """Read all of it, some lines at a time, as they come; at most a few blocks ahead.

        The thread is a daemon, and none of asyncio's or anyio's: those are waited for at exit, and a
        read from a terminal or a pipe may never end.

        Raises:
            ReadError: The source broke off.
        """
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[list[Line] | Exception | None] = asyncio.Queue()
        room = threading.Semaphore(_BLOCKS_AHEAD)
        is_left = threading.Event()

        def hand_over(chunk: list[Line] | Exception | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)

        def read() -> None:
            try:
                stream = _opened(self._raw)
                splitter = LineSplitter(max_bytes)
                while not is_left.is_set() and (block := stream.read1(_BLOCK)):
                    hand_over(splitter.feed(block))
                    room.acquire()
                hand_over(splitter.finish())
                hand_over(None)
            except Exception as error:  # whatever it is, the loop has to hear of it
                hand_over(error)
            finally:
                self._raw.close()

        threading.Thread(target=read, name="honeyhive_batcher.read", daemon=True).start()
        try:
            while (chunk := await chunks.get()) is not None:
                if isinstance(chunk, Exception):
                    raise ReadError(_reason(chunk)) from chunk
                yield chunk
                room.release()
        finally:
            is_left.set()
            room.release()

    def close(self) -> None:
        """Let go of a file that nobody has begun to read; afterwards reading does it at its end."""
        self._raw.close()


class _Stream(Protocol):
    def read1(self, size: int, /) -> bytes: ...


@final
class _Counted(io.RawIOBase):
    """A file that counts what is read from it, and waits where the other end asked not to wait."""

    def __init__(self, path: str | int) -> None:
        super().__init__()
        self.count = 0
        # Not sys.stdin: at exit Python would wait for a thread that reads from it.
        self._file = io.FileIO(path, closefd=path != 0)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]  # narrower
        while (count := self._file.readinto(buffer)) is None:  # O_NONBLOCK, set by who shares the pipe
            select.select([self._file], [], [])
        self.count += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _opened(raw: _Counted) -> "_Stream":
    stream = io.BufferedReader(raw, _BLOCK)
    return gzip.GzipFile(fileobj=stream, mode="rb") if stream.peek(2)[:2] == _GZIP_MAGIC else stream


def _reason(error: Exception) -> str:
    if isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error)):
        return f"the compressed data is damaged or cut short ({error})"
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
