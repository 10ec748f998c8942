"""The body of an answer, heard piece by piece: whole, or streamed."""

import json
from typing import Any, Protocol, final

import msgspec

from honeyhive_batcher.integrations.dialect import Assembly
from honeyhive_batcher.integrations.server_sent import ServerSentEvents

_MAX_HEARD = 16 * 1024 * 1024
"""Bytes of one answer that are listened to. An event of so much would be refused."""
_DONE = b"[DONE]"


class AnswerBody(Protocol):
    """What came of an answer so far."""

    @property
    def is_complete(self) -> bool:
        """Whether all of it came."""
        ...

    @property
    def error(self) -> str | None:
        """What the provider has said went wrong while it answered."""
        ...

    def see(self, data: bytes) -> None:
        """Take the next piece."""
        ...

    def answer(self) -> dict[str, Any]:
        """Return the answer as far as it came, in the shape of one that is not streamed."""
        ...


@final
class WholeBody:
    """An answer in one JSON text."""

    error = None

    def __init__(self) -> None:
        self.is_complete = False
        self._pieces: list[bytes] = []
        self._heard = 0

    def see(self, data: bytes) -> None:
        """Take the next piece."""
        self._heard += len(data)
        if self._heard <= _MAX_HEARD:
            self._pieces.append(data)

    def answer(self) -> dict[str, Any]:
        """Return the answer, an empty one while it is not all there, or is none."""
        try:
            answer = _decoded(b"".join(self._pieces))
        except (ValueError, RecursionError):
            return {}
        self.is_complete = True
        return answer if isinstance(answer, dict) else {}


@final
class StreamedBody:
    """An answer in server-sent events."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._events = ServerSentEvents()
        self._heard = 0

    @property
    def is_complete(self) -> bool:
        """Whether the provider has said that nothing more comes."""
        return self._assembly.is_complete

    @property
    def error(self) -> str | None:
        """What the provider has said went wrong in the midst of it."""
        return self._assembly.error

    def see(self, data: bytes) -> None:
        """Take the next piece."""
        self._heard += len(data)
        if self._heard > _MAX_HEARD:
            return
        for text in self._events.feed(data):
            if text == _DONE:
                self._assembly.finish()
                continue
            try:
                chunk = _decoded(text)
            except ValueError:
                continue  # the clients do not read it either, or raise, which is heard
            if isinstance(chunk, dict):
                self._assembly.add(chunk)

    def answer(self) -> dict[str, Any]:
        """Return the answer as far as it came."""
        return self._assembly.answer()


def _decoded(data: bytes) -> Any:
    """Return what a JSON text means to Python's own decoder, by which the clients read: NaN, and halves of
    characters that a provider has cut in two, are in order there.

    Raises:
        ValueError: It is none.
    """
    try:
        return msgspec.json.decode(data)
    except ValueError:
        return json.loads(data)
