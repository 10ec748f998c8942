"""A thread with an event loop, in which a batcher runs for programs that have none."""

import asyncio
import concurrent.futures.thread
import contextlib
import inspect
import math
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, final

T = TypeVar("T")

LAST_WORDS = 2.0
"""Seconds that the thread gets to end when all is said and done."""
_LOOK = 0.5
"""Seconds between two looks at a thread that may end without a word."""


@final
class LoopThread:
    """Begins with `begin`, in its own loop, and goes on until it is told to stop."""

    def __init__(self, begin: Callable[[], Awaitable[object]]) -> None:
        self._begin: Callable[[], Awaitable[object]] | None = begin
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_over = asyncio.Event()
        self._is_up = threading.Event()
        self._asked: set[Coroutine[Any, Any, Any]] = set()  # what was asked for and has not ended
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
            self._loop = None
            for main in self._asked.copy():  # what came too late to begin, lest Python complains
                if inspect.getcoroutinestate(main) == inspect.CORO_CREATED:
                    main.close()
            self._is_up.set()

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(_Executor(4, "honeyhive_batcher"))
        begin, self._begin = self._begin, None
        assert begin is not None
        await begin()
        self._loop = loop
        self._is_up.set()
        await self._is_over.wait()

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
        return self._loop is not None

    def call(
        self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any, timeout: float | None = None
    ) -> T:
        """Call a coroutine function in the loop, and wait for what it returns or raises. An exception that
        comes while waiting, as Ctrl-C does, cancels it.

        Raises:
            concurrent.futures.TimeoutError: It took longer than so many seconds.
            concurrent.futures.CancelledError: The thread has ended.
        """
        future = self.call_soon(function, *args)
        try:
            return self.result(future, timeout)
        except BaseException:
            future.cancel()
            raise

    def call_soon(
        self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any
    ) -> concurrent.futures.Future[T]:
        """Call a coroutine function in the loop, and do not wait for it. In the context of the caller.

        Raises:
            concurrent.futures.CancelledError: The thread has ended.
        """
        # Not through a portal of anyio: it waits until the loop has a turn, and the loop may be held up.
        loop = self._loop
        if loop is not None:
            main = function(*args)
            self._asked.add(main)  # first: the loop may end before it comes to it
            try:
                future = asyncio.run_coroutine_threadsafe(main, loop)
            except RuntimeError:  # it was closed just now
                self._asked.discard(main)
                main.close()
            else:
                future.add_done_callback(lambda _: self._asked.discard(main))
                return future
        raise concurrent.futures.CancelledError

    def result(self, future: concurrent.futures.Future[T], timeout: float | None = None) -> T:
        """Wait for what `call_soon` returned; raises as `call`, but leaves it alone."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not future.done():
            left = deadline - time.monotonic()
            if left <= 0:
                raise concurrent.futures.TimeoutError
            # Not for ever: of a loop that ends just now nobody would be told.
            concurrent.futures.wait((future,), min(left, _LOOK))
            if self.has_ended and not future.done():
                raise concurrent.futures.CancelledError
        return future.result()

    def stop_soon(self) -> None:
        """Have it end, and cancel whatever it is still asked to do."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(self._is_over.set)

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
