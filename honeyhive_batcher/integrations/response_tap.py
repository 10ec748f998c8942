"""Sees what a client reads of an HTTP response: the same pieces, when it reads them, and their end.

OpenAI's and Anthropic's clients, of whatever version, read a response of httpx or of httpx2 through two of
its methods. They are shadowed on that one response, so that everything the user sees keeps its type: streams,
raw responses, what parses them, and whoever looks at the response itself.
"""

import weakref
from typing import Any, Protocol, Self, final


class Listener(Protocol):
    """Who is told. Nothing of it raises."""

    def see(self, data: bytes) -> None:
        """Take what was read, decoded from what the transfer made of it."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """Note that nothing more comes: all was read, or it was given up, or there was an error. Called once
        at least.
        """
        ...


def is_response(candidate: Any) -> bool:
    """Return whether this is a response of httpx or its like."""
    return hasattr(candidate, "iter_bytes") and hasattr(candidate, "aiter_bytes")


def tap(response: Any, listener: Listener, *, is_async: bool) -> None:
    """Have `listener` told of what is read of `response` from now on, and of its end: also if it is dropped
    unread, when Python collects it.
    """
    seen = _Tap(response, listener)
    shadows = {"aiter_bytes": seen.aiter_bytes, "aclose": seen.aclose}
    vars(response).update(shadows if is_async else {"iter_bytes": seen.iter_bytes, "close": seen.close})


@final
class _Tap:
    """Is part of a circle with the response, until its end. Not by a weak reference: a response is closed by
    generators that are collected with it, when no such reference leads to it any more.
    """

    def __init__(self, response: Any, listener: Listener) -> None:
        self._response = response
        self._type = type(response)
        self.listener = listener
        self.is_reading = False
        # Earlier than what a generator that is dropped would tell, and in no need of a loop.
        self._finalizer = weakref.finalize(response, listener.end)
        self._finalizer.atexit = False

    def iter_bytes(self, *arguments: Any, **named: Any) -> "_Pieces":
        """Do what the response would, and tell."""
        return _Pieces(self, self._type.iter_bytes(self._response, *arguments, **named))

    def aiter_bytes(self, *arguments: Any, **named: Any) -> "_AwaitedPieces":
        """Do what the response would, and tell."""
        return _AwaitedPieces(self, self._type.aiter_bytes(self._response, *arguments, **named))

    def close(self) -> None:
        """Do what the response would, and tell."""
        try:
            self._type.close(self._response)
        finally:
            self._closed()

    async def aclose(self) -> None:
        """Do what the response would, and tell."""
        try:
            await self._type.aclose(self._response)
        finally:
            self._closed()

    def end(self, error: BaseException | None = None) -> None:
        """Tell of the end, and leave the response alone from now on."""
        self._finalizer.detach()  # it would keep what was heard for as long as there is the response
        self.listener.end(error)
        for name in ("iter_bytes", "aiter_bytes", "close", "aclose"):
            vars(self._response).pop(name, None)

    def _closed(self) -> None:
        # A response that is read to its end closes itself, and may have a last piece to give after that.
        if not self.is_reading:
            self.end()


# No generators: those would be closed once more when they are dropped, by the event loop, at some time.


class _Pieces:
    """What a response yields."""

    def __init__(self, seen: _Tap, parts: Any) -> None:
        self._tap = seen
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parts, name)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        seen = self._tap
        seen.is_reading = True
        try:
            part: bytes = next(self._parts)
        except StopIteration:
            seen.end()
            raise
        except BaseException as error:
            seen.end(error)
            raise
        finally:
            seen.is_reading = False
        seen.listener.see(part)
        return part


class _AwaitedPieces:
    """What a response yields to who awaits."""

    def __init__(self, seen: _Tap, parts: Any) -> None:
        self._tap = seen
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parts, name)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        seen = self._tap
        seen.is_reading = True
        try:
            part: bytes = await anext(self._parts)
        except StopAsyncIteration:
            seen.end()
            raise
        except BaseException as error:
            seen.end(error)
            raise
        finally:
            seen.is_reading = False
        seen.listener.see(part)
        return part
