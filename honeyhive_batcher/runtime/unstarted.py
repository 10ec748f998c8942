"""What is said about events that are pushed while nothing has been started that would send them."""

import logging
import sys
import threading
from typing import final

from honeyhive_batcher.core.model import Clock
from honeyhive_batcher.runtime.reporter import say
from honeyhive_batcher.runtime.waiting import running_loop

PATIENCE = 5.0
"""Seconds that a program gets between its first push and its start before somebody hears of it."""


@final
class Unstarted:
    """Warns once, and not about what is usual: a push while modules are imported, or on the way to the start.

    A program that serves already and pushes has forgotten the start, or its framework has: a TestClient
    outside of `with` runs no lifespan, nor does httpx's ASGITransport.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_at: float | None = None
        self._has_warned = False

    def notice(self) -> None:
        """Take note of an event that is held. From any thread; called for every one until the start."""
        if self._has_warned:
            return
        now = self._clock()
        if self._first_at is None:
            self._first_at = now
        if now < self._first_at + PATIENCE and not _serves():
            return
        self._has_warned = True
        say(
            logging.WARNING,
            "an event was pushed before the batcher was started: such events are held, within the bounds, "
            "until something starts it, like `async with batcher`, or a lifespan, which a test's client runs "
            "only if it is told to",
        )


def _serves() -> bool:
    """Return whether the program is under way here: in an event loop, or in a thread of some pool, and not
    while a module is imported, which servers do in their event loop as well.
    """
    if running_loop() is None and threading.current_thread() is threading.main_thread():
        return False
    frame = sys._getframe()  # noqa: SLF001 - the `inspect` that wraps it reads source files
    while (caller := frame.f_back) is not None:
        if caller.f_code.co_filename.startswith("<frozen importlib"):
            return False
        frame = caller
    return True
