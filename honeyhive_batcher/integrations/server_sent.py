"""Server-sent events, as they come in pieces (WHATWG HTML, "Server-sent events": interpreting a stream)."""

from typing import final


@final
class ServerSentEvents:
    """Puts pieces of a stream together. Only the data of events is kept: models' events name their type in it
    once more.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """Take a piece; return the data of the events that it completes."""
        lines = (self._rest + piece).splitlines(keepends=True)
        # A carriage return at the end may be half of a line's ending.
        self._rest = b"" if not lines or lines[-1].endswith(b"\n") else lines.pop()
        complete: list[bytes] = []
        for line in lines:
            content = line.rstrip(b"\r\n")
            if content.startswith(b"data:"):
                self._data.append(content[5:].removeprefix(b" "))
            elif not content and self._data:
                complete.append(b"\n".join(self._data))
                self._data = []
        return complete
