"""Server-sent events, as they come in pieces (WHATWG HTML, "Server-sent events": interpreting a stream)."""

from typing import final


@final
class ServerSentEvents:
    """Puts pieces of a stream together. Only the data of events is kept: models' events name their type in it
    once more.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """Take a piece; return the data of the events that it completes."""
        if not piece:
            return []
        is_within_line = b"\n" not in piece and b"\r" not in piece
        if is_within_line and not (self._rest and self._rest[-1].endswith(b"\r")):
            # Not joined yet: each join of a long line, an image's say, would cost as much as all before.
            self._rest.append(piece)
            return []
        lines = b"".join((*self._rest, piece)).splitlines(keepends=True)
        # A carriage return at the end may be half of a line's ending.
        self._rest = [] if not lines or lines[-1].endswith(b"\n") else [lines.pop()]
        complete: list[bytes] = []
        for line in lines:
            content = line.rstrip(b"\r\n")
            if content.startswith(b"data:"):
                self._data.append(content[5:].removeprefix(b" "))
            elif not content and self._data:
                complete.append(b"\n".join(self._data))
                self._data = []
        return complete
