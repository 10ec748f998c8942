"""A sleep in the event loop that ends at an instant, or when anybody in any thread ends it."""

import asyncio
from typing import final

from honeyhive_batcher.core.model import Clock
from honeyhive_batcher.runtime.waiting import running_loop

_LONGEST = 86_400.0
"""Seconds; not every loop takes a timer at infinity."""


@final
class Alarm:
    """Wakes one sleeper, the task that runs a worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._sleep: asyncio.Future[None] | None = None
        self._is_rung = False  # and the sleeper will see to it

    def set(self) -> None:
        """Begin to listen: whoever rings from here on cuts the next sleep short."""
        self._sleep = self._loop.create_future()
        self._is_rung = False

    def ring(self) -> None:
        """Wake the sleeper, in the thread of its loop."""
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    def ring_soon(self) -> None:
        """Wake the sleeper. From any thread."""
        if self._is_rung:
            return
        self._is_rung = True  # before it is done: another thread's loop may do it at once, and listen anew
        try:
            if running_loop() is self._loop and asyncio.current_task(self._loop) is not None:
                self._loop.call_soon(self.ring)
            else:
                # Seven times as long, because it writes to a pipe. Also in the loop's own thread, unless it
                # runs a task: a push from a signal handler or a `__del__` may come while the loop sleeps in
                # its selector, and only this rouses it.
                self._loop.call_soon_threadsafe(self.ring)
        except BaseException as error:
            self._is_rung = False
            # A closed loop raises a RuntimeError: the next start takes over. With a RecursionError the intake
            # does it later.
            if isinstance(error, RecursionError) or not isinstance(error, RuntimeError):
                raise

    async def sleep_until(self, instant: float | None) -> None:
        """Sleep until `instant`, or for ever. Raises only a cancellation."""
        assert self._sleep is not None
        delay = None if instant is None else min(instant - self._clock(), _LONGEST)
        if self._sleep.done() or (delay is not None and delay <= 0):
            await asyncio.sleep(0)  # let the host have its turn
            return
        timer = None if delay is None else self._loop.call_later(delay, self.ring)
        try:
            await self._sleep
        finally:
            if timer is not None:
                timer.cancel()
