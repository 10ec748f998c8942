"""Callers that wait for the worker, in any event loop: for progress (`flush`), room (`put`), its end."""

import asyncio
import contextlib
from collections import deque
from typing import final


def _release(waiter: asyncio.Future[None]) -> None:
    """Let the waiter go on, in its own loop. Called in whichever loop runs the worker or closes it."""
    if waiter.done():
        return

    def set_result() -> None:
        if not waiter.done():
            waiter.set_result(None)

    loop = waiter.get_loop()
    with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits there any more
        if loop is asyncio.get_running_loop():
            set_result()
        else:
            loop.call_soon_threadsafe(set_result)


@final
class Waiters:
    """Callers that all go on together. Appending to and taking from a deque is atomic, so no lock is
    needed.

    Who waits registers first and looks at its condition again afterwards: then no wake-up is lost.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    def register(self) -> asyncio.Future[None]:
        """Return a future that the next release sets."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return waiter

    def release_all(self) -> None:
        """Let everybody go on who waits now."""
        with contextlib.suppress(IndexError):  # another thread took the last one
            for _ in range(len(self._waiting)):
                _release(self._waiting.popleft())


@final
class Place:
    """One caller's place in a line. It is kept, however often the caller is released in vain."""

    def __init__(self) -> None:
        self.waiter = asyncio.get_running_loop().create_future()

    def renew(self) -> asyncio.Future[None]:
        """Return a future that the next release sets."""
        self.waiter = asyncio.get_running_loop().create_future()
        return self.waiter


@final
class Line:
    """Callers that go on one after another, first come, first served.

    Invariant: when something has happened that the first might wait for, it has been released and has
    not looked yet; who leaves releases the next. So a caller that is cancelled takes no release with it.
    """

    def __init__(self) -> None:
        self._places: deque[Place] = deque()

    def join(self) -> Place:
        """Return the place behind all others; `leave` has to follow."""
        place = Place()
        self._places.append(place)
        return place

    def leave(self, place: Place) -> None:
        """Give a place up, and let the next one look: there may be more of what this one got."""
        self._places.remove(place)
        place.waiter.cancel()
        self.release_one()

    def release_one(self) -> None:
        """Let the first in line go on."""
        at = 0
        with contextlib.suppress(IndexError):  # the line is empty, or another thread took the last place
            while True:
                waiter = self._places[at].waiter
                _release(waiter)
                if waiter.get_loop().is_running():
                    return
                at += 1  # one whose loop stands still holds nobody up


async def undisturbed(task: asyncio.Future[None]) -> bool:
    """Wait for the end of `task` whoever cancels the caller meanwhile; return whether somebody did."""
    was_cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            was_cancelled = True
    return was_cancelled
