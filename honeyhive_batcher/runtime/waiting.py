"""Callers that wait for the worker, in any event loop: for progress (`flush`), room (`put`), its end."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import final

from honeyhive_batcher.core.model import Clock

LOOK = 0.05
"""Seconds between two looks at a worker in another loop, which may end without a word."""


LONGEST = 1e9
"""Seconds; more is for ever, and not every loop takes a timer at infinity."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _release(waiter: asyncio.Future[None]) -> None:
    """Let the waiter go on, in its own loop. Called in whichever loop runs the worker, or in none."""
    if waiter.done():
        return

    def set_result() -> None:
        if not waiter.done():
            waiter.set_result(None)

    loop = waiter.get_loop()
    if loop is running_loop():
        set_result()
        return
    with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits there any more
        loop.call_soon_threadsafe(set_result)


@final
class Waiters:
    """Callers that all go on together. Every step on the dict is atomic, so no lock is needed.

    Who waits registers first and looks at its condition again afterwards: then no wake-up is lost.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}

    def register(self) -> asyncio.Future[None]:
        """Return a future that the next release sets; `forget` has to follow."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        return waiter

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """Let go of a waiter that waits no longer."""
        self._waiting.pop(waiter, None)

    def release_all(self) -> None:
        """Let everybody go on who waits now."""
        with contextlib.suppress(KeyError):  # that was the last one
            while True:
                _release(self._waiting.popitem()[0])


@final
class Place:
    """One caller's place in a line. It is kept, however often the caller is released in vain."""

    def __init__(self) -> None:
        self.waiter = asyncio.get_running_loop().create_future()

    def renew(self) -> asyncio.Future[None]:
        """Return a future that the next release sets."""
        self.waiter = asyncio.get_running_loop().create_future()
        return self.waiter

    @property
    def is_alive(self) -> bool:
        """Whether its caller can go on: one whose loop stands still holds nobody up."""
        return self.waiter.get_loop().is_running()


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
        if self._places:
            for place in list(self._places):
                _release(place.waiter)
                if place.is_alive:
                    return

    @property
    def is_empty(self) -> bool:
        """Whether nobody stands in it who could go on."""
        return not self._places or not any(place.is_alive for place in list(self._places))

    def is_first(self, place: Place) -> bool:
        """Whether it is this one's turn."""
        return next((first for first in list(self._places) if first.is_alive), place) is place


@final
class Vigil:
    """Watches a loop from another one, and notices that it will hardly turn again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience: float, clock: Clock) -> None:
        self.loop = loop
        self._patience = patience  # seconds: a loop may stop for a moment between two of its callers
        self._clock = clock
        self._still_since: float | None = None

    def is_over(self) -> bool:
        """Whether the loop is closed, or stood still for too long whenever somebody looked."""
        if self.loop.is_running():
            self._still_since = None
            return False
        if self._still_since is None:
            self._still_since = self._clock()
        return self.loop.is_closed() or self._clock() >= self._still_since + self._patience


async def undisturbed(task: asyncio.Future[None]) -> bool:
    """Wait for the end of `task` whoever cancels the caller meanwhile; return whether somebody did."""
    was_cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            was_cancelled = True
    return was_cancelled


def call_in(loop: asyncio.AbstractEventLoop, call: Callable[[float], None], timeout: float) -> None:
    """Have it called in another thread's loop, if that lives."""
    with contextlib.suppress(RuntimeError):  # it was closed just now
        loop.call_soon_threadsafe(call, timeout)


def patience(timeout: float | None) -> float | None:
    """Return how many seconds to wait, None for as long as it takes: so counts what is no number, too."""
    return None if timeout is None or not timeout < LONGEST else max(0.0, timeout)
