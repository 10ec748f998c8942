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
        slice_, size = [self.opening], len(self.opening)
        last = len(self.parts) - 1
        for place, part in enumerate(self.parts):
            end = self.ending if place == last else b","
            if size and size + len(part) + len(end) > most:
                yield b"".join(slice_)
                slice_, size = [], 0
            if len(part) + len(end) > most:
                view = memoryview(part)
                for at in range(0, len(part), most):
                    yield view[at : at + most]
                slice_, size = [end], len(end)
            else:
                slice_ += [part, end]
                size += len(part) + len(end)
        if size:
            yield b"".join(slice_)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}: {self.size} bytes>"
