"""What is said about events that are pushed while nothing has been started that would send them."""

import asyncio
import logging
import sys
import threading
import weakref
from typing import Any, final

from honeyhive_batcher.core.model import Clock
from honeyhive_batcher.runtime.reporter import say
from honeyhive_batcher.runtime.waiting import running_loop

PATIENCE = 5.0
"""Seconds that a program gets between its first push and its start before somebody hears of it."""


@final
class Unstarted:
    """Warns once, and not about what is usual: a push while modules are imported, or right before a start.

    A program that pushes in one task after another has forgotten the start, or its framework has: a
    TestClient outside of `with` runs no lifespan, nor does httpx's ASGITransport.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_at: float | None = None
        self._first_place: weakref.ref[Any] | None = None
        self._has_warned = False

    def notice(self) -> None:
        """Take note of an event that is held. From any thread; called for every one until the start."""
        if self._has_warned:
            return
        now = self._clock()
        if self._first_at is None:
            self._first_at = now
        if now < self._first_at + PATIENCE and not self._has_gone_on():
            return
        self._has_warned = True
        say(
            logging.WARNING,
            "events are pushed, but the batcher was not started: they are held, within the bounds, until "
            "something starts it, like `async with batcher`, or a lifespan, which a test's client runs only "
            "if it is told to",
            kind="not_started",
        )

    def _has_gone_on(self) -> bool:
        """Return whether the program is under way: it has pushed in another task or thread before."""
        place = _place()
        if place is None or (self._first_place is not None and self._first_place() is place) or _imports():
            return False
        if self._first_place is None:
            self._first_place = weakref.ref(place)
            return False
        return True


def _place() -> asyncio.Task[Any] | threading.Thread | None:
    """Return the task, or the thread of some pool, that pushes; None for a program that has neither yet."""
    thread = threading.current_thread()
    if running_loop() is None:
        return None if thread is threading.main_thread() else thread
    return asyncio.current_task() or thread


def _imports() -> bool:
    """Return whether a module is being imported, which servers do in a task as well."""
    frame = sys._getframe()  # noqa: SLF001 - the `inspect` that wraps it reads source files
    while (caller := frame.f_back) is not None:
        if caller.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = caller
    return False
