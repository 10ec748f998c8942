"""A thread with an event loop, in which a batcher runs for programs that have none."""

import asyncio
import concurrent.futures.thread
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, final

from anyio.from_thread import BlockingPortal

T = TypeVar("T")

LAST_WORDS = 2.0
"""Seconds that the thread gets to end when all is said and done."""


@final
class LoopThread:
    """Begins with `begin`, in its own loop, and goes on until it is told to stop."""

    def __init__(self, begin: Callable[[], Awaitable[object]]) -> None:
        self._begin: Callable[[], Awaitable[object]] | None = begin
        self._portal: BlockingPortal | None = None
        self._is_up = threading.Event()
        self.error: Exception | None = None
        """Why it did not begin, or ended."""
        self.is_running = True
        """False as soon as it will do nothing more."""
        # A daemon: a program that does not care to close is not kept from ending, see `ending`.
        self._thread = threading.Thread(target=self._run, name="honeyhive_batcher", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:  # nobody is here to be told
            self.error = error
        finally:
            self.is_running = False
            self._portal = None
            self._is_up.set()

    async def _main(self) -> None:
        asyncio.get_running_loop().set_default_executor(_Executor(4, "honeyhive_batcher"))
        begin, self._begin = self._begin, None
        assert begin is not None
        async with BlockingPortal() as portal:
            await begin()
            self._portal = portal
            self._is_up.set()
            await portal.sleep_until_stopped()

    @property
    def is_here(self) -> bool:
        """Whether it is the thread that asks, which cannot wait for itself."""
        return threading.current_thread() is self._thread

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left of it."""
        return not self._thread.is_alive()

    def is_up(self, timeout: float | None) -> bool:
        """Wait until it has begun, at most so many seconds, and return whether it runs."""
        self._is_up.wait(timeout)
        return self._portal is not None

    def call(self, function: Callable[..., Awaitable[T]], *args: Any, timeout: float | None = None) -> T:
        """Call a coroutine function in the loop, and wait for what it returns or raises. An exception that
        comes while waiting, as Ctrl-C does, cancels it.

        Raises:
            concurrent.futures.TimeoutError: It took longer than so many seconds.
            concurrent.futures.CancelledError: The thread has ended.
        """
        future = self.call_soon(function, *args)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def call_soon(self, function: Callable[..., Awaitable[T]], *args: Any) -> concurrent.futures.Future[T]:
        """Call a coroutine function in the loop, and do not wait for it.

        Raises:
            concurrent.futures.CancelledError: The thread has ended.
        """
        portal = self._portal
        try:
            if portal is not None:
                return portal.start_task_soon(function, *args)
        except RuntimeError:  # its loop has ended just now
            pass
        raise concurrent.futures.CancelledError

    def stop_soon(self) -> None:
        """Have it end, and cancel whatever it is still asked to do."""
        portal = self._portal
        if portal is not None:
            with contextlib.suppress(concurrent.futures.CancelledError):
                self.call_soon(portal.stop, True)

    def join(self) -> None:
        """Wait for its end, within bounds."""
        self._thread.join(LAST_WORDS)


@final
class _Executor(concurrent.futures.thread.ThreadPoolExecutor):
    """Resolves names for the loop, also while the interpreter ends and takes no new threads: then there is
    nobody left whom it would keep waiting.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            future = concurrent.futures.Future[T]()
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)
            return future
