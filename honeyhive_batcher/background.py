"""When the thread of a `BlockingBatcher` begins and ends, in a program, in its children, and at its end."""

# ruff: noqa: SLF001 - it is made of the inside of a `Batcher`

import concurrent.futures
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Generator
from typing import final

from honeyhive_batcher.batcher import Batcher
from honeyhive_batcher.errors import BatcherError
from honeyhive_batcher.runtime.ending import at_end
from honeyhive_batcher.runtime.fork import at_fork, before_fork, keep_for_ever
from honeyhive_batcher.runtime.reporter import say
from honeyhive_batcher.runtime.thread import LAST_WORDS, LoopThread

_PAUSE = 60.0
"""Seconds after a thread that did not begin until the next push tries again."""


@final
class Background:
    """The thread, if any, in which a batcher runs."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._shutdown_timeout = batcher.config.shutdown.shutdown_timeout
        self._begin_anew()
        at_fork(self)
        before_fork(self)

    def settle(self) -> None:
        """Let the thread begin before this process forks: in the child, what it imports just now would stay
        half imported for ever.
        """
        if self.thread is not None and not self.thread.is_here:
            self.thread.is_up(LAST_WORDS)

    def _begin_anew(self) -> None:
        self.thread: LoopThread | None = None
        self._lock = threading.RLock()  # for whoever begins or ends the thread; a signal may interrupt it
        self._is_closed = False
        self._is_owed_a_close = False
        self._is_beginning = False
        self._is_hastened = False
        self._invocations = 0
        self._not_before = float("-inf")
        at_end(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child, in which the thread does not run. Called by itself."""
        if self.thread is not None:
            keep_for_ever(self.thread)
        self._begin_anew()

    @property
    def _held(self) -> int:
        return self._batcher.statistics().held

    def elsewhere(self) -> LoopThread | None:
        """Return the thread, to wait for it. Raises BatcherError in that thread itself."""
        thread = self.thread
        if thread is not None and thread.is_here:
            raise BatcherError("a callback of the batcher cannot wait for the batcher")
        return thread

    def start(self) -> None:
        """See `BlockingBatcher.start`."""
        with self._lock:
            self._is_closed, self._is_owed_a_close = False, True
            try:
                thread = self._begin()
            except RuntimeError as error:
                raise BatcherError("there is no thread to be had for the batcher") from error
        if not thread.is_here and not thread.is_up(None):
            raise BatcherError("the batcher's thread could not begin") from thread.error

    def close(self, timeout: float | None) -> None:
        """See `BlockingBatcher.close`."""
        self.elsewhere()
        with self._lock:
            was_closed, self._is_closed, self._is_owed_a_close = self._is_closed, True, False
            thread = self.thread
            if not was_closed and self._held:
                with contextlib.suppress(RuntimeError):  # no thread to be had: then it is given up
                    thread = self._begin()
            if thread is not None and thread.is_up(None):
                with contextlib.suppress(concurrent.futures.CancelledError):
                    thread.result(thread.call_soon(self._batcher.aclose, timeout))
                thread.stop_soon()
                thread.join()
            self._batcher._lifecycle.abandon()
            self.thread = None

    @contextlib.contextmanager
    def visited(self) -> Generator[None]:
        """Let the thread end after this, unless it was started; of several at once the last one does it."""
        with self._lock:
            self._invocations += 1
        try:
            yield
        finally:
            with self._lock:
                self._invocations -= 1
                if not self._invocations and not self._is_owed_a_close:
                    self._rest()

    def forget(self) -> None:
        """Deliver what is held and end, for a batcher that nobody can reach any more."""
        if self.thread is not None:
            self._finish_soon(self.thread, self._shutdown_timeout)

    # The end of the program, see `ending`.

    def hasten(self) -> float:
        """Begin to close, if there are events held."""
        if self.thread is None or not self._held:
            return 0.0
        timeout = self._shutdown_timeout
        deadline = time.monotonic() + timeout
        if not self.thread.is_up(timeout):
            return 0.0
        rest = max(0.0, deadline - time.monotonic())
        self._finish_soon(self.thread, rest)
        self._is_hastened = True
        return rest + LAST_WORDS

    @property
    def is_closing(self) -> bool:
        """Whether what `hasten` began goes on."""
        return self._is_hastened and self.thread is not None and not self.thread.has_ended

    def give_up(self) -> None:
        """Leave it to the batcher inside, which says so itself."""

    # The thread.

    def _begin(self) -> LoopThread:
        """Return the thread, begun if need be. With the lock."""
        if self.thread is None or not self.thread.is_running:
            self._is_beginning = True
            try:
                self.thread = LoopThread(functools.partial(_start, self._batcher))
            finally:
                self._is_beginning = False
        return self.thread

    def begin_soon(self) -> None:
        """Begin the thread unless it runs, without waiting for it. Never raises."""
        if self._is_closed or self._is_beginning or not self._lock.acquire(blocking=False):
            return  # somebody else begins it; or this push interrupts that, as a signal handler's may
        try:
            self._begin_again()
        except Exception as error:  # no thread to be had
            self.thread, self._not_before = None, time.monotonic() + _PAUSE
            raised = type(error).__name__
            text = "the batcher's thread could not begin (%s)"
            say(logging.ERROR, text, raised, kind="thread_failed", raised=raised)
        finally:
            self._lock.release()

    def _begin_again(self) -> None:
        if self.thread is not None and self.thread.error is not None and not self.thread.is_running:
            raise self.thread.error
        if time.monotonic() >= self._not_before:
            self._begin()

    def _rest(self) -> None:
        """End the thread, and leave what is held to the next one. With the lock."""
        thread = self.thread
        if thread is not None and not thread.is_here and thread.is_up(LAST_WORDS):
            with contextlib.suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
                thread.call(self._batcher._lifecycle.rest, timeout=LAST_WORDS)
            thread.stop_soon()
            thread.join()

    def _finish_soon(self, thread: LoopThread, timeout: float) -> None:
        with contextlib.suppress(concurrent.futures.CancelledError):
            thread.call_soon(_finish, self._batcher, thread, timeout)


async def _start(batcher: Batcher) -> None:
    """Start it without a debt: the end of the program closes it if nobody does."""
    await batcher._lifecycle.start(is_owed_a_close=False)
    batcher._has_warned_closed = False


async def _finish(batcher: Batcher, thread: LoopThread, timeout: float) -> None:
    await batcher.aclose(timeout)
    thread.stop_soon()
