"""What is sent: in one piece, or in slices that are made as they are wanted."""

from collections.abc import Iterator

from msgspec import Struct


class Request(Struct, frozen=True, eq=False, kw_only=True):
    """What is sent: the same bytes for every attempt of a batch."""

    method: str
    path: str
    opening: bytes = b""
    parts: tuple[bytes, ...]
    """What stands in the body between opening and ending, a comma between each two. At least one."""
    ending: bytes = b""
    max_reply_bytes: int
    """How much of the response body is worth reading."""
    plain: bool = False
    """Not to be compressed."""

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.opening) + sum(map(len, self.parts)) + len(self.parts) - 1 + len(self.ending)

    @property
    def body(self) -> bytes:
        """The body in one piece."""
        # To the first and the last of them, and not around the whole: most of it is copied once.
        parts = list(self.parts)
        parts[0] = self.opening + parts[0]
        parts[-1] += self.ending
        return b",".join(parts)

    def slices(self, most: int) -> Iterator[bytes | memoryview]:
        """Yield the body in pieces of `most` bytes at the most. No more than one of them is ever copied."""
        waiting: list[bytes] = []
        size = 0
        for piece in self._pieces():
            if size and size + len(piece) > most:
                yield b"".join(waiting)
                waiting, size = [], 0
            if len(piece) <= most:
                waiting.append(piece)
                size += len(piece)
            else:
                view = memoryview(piece)
                for at in range(0, len(piece), most):
                    yield view[at : at + most]
        if size:
            yield b"".join(waiting)

    def _pieces(self) -> Iterator[bytes]:
        yield self.opening
        for place, part in enumerate(self.parts):
            if place:
                yield b","
            yield part
        yield self.ending

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}: {self.size} bytes>"
