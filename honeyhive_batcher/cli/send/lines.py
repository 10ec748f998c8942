"""Bytes become numbered lines, with bounded memory however long a line is."""

from typing import final

from msgspec import Struct


class Line(Struct, frozen=True):
    """A line without its end, or a piece of one that is too long to be kept whole."""

    number: int
    """From 1."""
    data: bytes
    begins: bool = True
    """Whether the line begins with this piece."""
    ends: bool = True
    """Whether the line ends with it."""


@final
class LineSplitter:
    """Cuts blocks of bytes at line feeds. A line beyond `max_bytes` comes in several pieces.

    Invariant: `_parts` hold no line feed, and at most `max_bytes` and one block.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._number = 1
        self._parts: list[bytes] = []
        self._size = 0
        self._begins = True

    def feed(self, block: bytes) -> list[Line]:
        """Return the lines that this block completes, and the piece of one that grows too long."""
        *whole, rest = block.split(b"\n")
        lines = [self._end(data) for data in whole]
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > self._max_bytes:
                lines.append(self._line(ends=False))
                self._begins = False
        return lines

    def finish(self) -> list[Line]:
        """Return the last line if no line feed ended it."""
        return [self._line(ends=True)] if self._size or not self._begins else []

    def _end(self, data: bytes) -> Line:
        self._parts.append(data)
        line = self._line(ends=True)
        self._number += 1
        self._begins = True
        return line

    def _line(self, *, ends: bool) -> Line:
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return Line(self._number, data, self._begins, ends)
