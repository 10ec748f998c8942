"""Callers that wait for the worker, in any event loop: for progress (`flush`) and for room (`put`)."""

import asyncio
from collections import deque
from typing import final


def _release(waiter: asyncio.Future[None]) -> bool:
    """Let the waiter go on, in its own loop; return whether it was still waiting."""
    if waiter.done():
        return False

    def set_result() -> None:
        if not waiter.done():
            waiter.set_result(None)

    loop = waiter.get_loop()
    try:
        if loop is _running_loop():
            set_result()
        else:
            loop.call_soon_threadsafe(set_result)
    except RuntimeError:  # its loop is closed: nobody waits there any more
        return False
    return True


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@final
class Waiters:
    """A line of waiting callers. Appending to and taking from a deque is atomic, so no lock is needed.

    Who waits registers first and looks at its condition again afterwards: then no wake-up is lost.
    """

    def __init__(self) -> None:
        self._line: deque[asyncio.Future[None]] = deque()

    def register(self, *, first: bool = False) -> asyncio.Future[None]:
        """Return a future that the next release sets; `first` goes to the head of the line."""
        waiter = asyncio.get_running_loop().create_future()
        if first:
            self._line.appendleft(waiter)
        else:
            self._line.append(waiter)
        return waiter

    def leave(self, waiter: asyncio.Future[None]) -> None:
        """Take a waiter out of the line; what it was released for goes to the next one."""
        if waiter.done() and not waiter.cancelled():
            self.release_one()
            return
        try:
            self._line.remove(waiter)
        except ValueError:
            pass
        waiter.cancel()

    def release_one(self) -> None:
        """Let the first in line go on."""
        while self._line:
            try:
                waiter = self._line.popleft()
            except IndexError:  # another thread took the last one
                return
            if _release(waiter):
                return

    def release_all(self) -> None:
        """Let everybody go on who waits now."""
        for _ in range(len(self._line)):
            try:
                _release(self._line.popleft())
            except IndexError:
                return
