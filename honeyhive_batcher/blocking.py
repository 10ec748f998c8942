"""The same verbs for programs without an event loop: Flask, Django under WSGI, Celery, scripts, notebooks."""

# ruff: noqa: SLF001 - it is made of the inside of a `Batcher`

import concurrent.futures
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Self, Unpack, final

import msgspec

from honeyhive_batcher.batcher import Batcher
from honeyhive_batcher.config import Config
from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Admission
from honeyhive_batcher.errors import BatcherError
from honeyhive_batcher.events import SessionProperties
from honeyhive_batcher.model_call import TimesCalls
from honeyhive_batcher.runtime.ending import at_end
from honeyhive_batcher.runtime.flush_result import FlushResult
from honeyhive_batcher.runtime.fork import at_fork, keep_for_ever, notice_fork
from honeyhive_batcher.runtime.reporter import say
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.runtime.thread import LAST_WORDS, LoopThread
from honeyhive_batcher.runtime.waiting import patience
from honeyhive_batcher.session import Session
from honeyhive_batcher.settings import Settings

_PAUSE = 60.0
"""Seconds after a thread that did not begin until the next push tries again."""


@final
class BlockingBatcher(TimesCalls):
    """A `Batcher` on a thread of its own, for code that does not await. All methods from any thread.

    It needs no start: the thread begins with the first push in a process, also in a forked child, where
    everything begins anew. It needs no close either: when the program ends, what is held is delivered, for
    at most `shutdown_timeout` seconds. But `multiprocessing` and Celery end their children without Python's
    usual end: call `close` there, or use it as `with BlockingBatcher(...) as batcher:`.

    Settings and callbacks are those of `Batcher`; the callbacks are called on the thread.

    Raises:
        ConfigError: A setting is unknown, missing or wrong.
    """

    def __init__(
        self,
        *,
        before_send: Callable[[Any], Any] | None = None,
        on_delivered: Callable[[tuple[str, ...]], object] | None = None,
        on_dropped: Callable[[tuple[str, ...], str], object] | None = None,
        on_unconfirmed: Callable[[tuple[str, ...]], object] | None = None,
        _seams: Seams = Seams(),  # noqa: B008 - frozen
        **settings: Unpack[Settings],
    ) -> None:
        self._set_up(
            Batcher(
                before_send=before_send,
                on_delivered=on_delivered,
                on_dropped=on_dropped,
                on_unconfirmed=on_unconfirmed,
                _seams=msgspec.structs.replace(_seams, starts_itself=True),
                **settings,
            )
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **settings: Any) -> Self:
        """Make a batcher from the environment, as `Batcher.from_env` does.

        Raises:
            ConfigError: There is no usable API key, or an argument is wrong.
        """
        seams = msgspec.structs.replace(settings.pop("_seams", Seams()), starts_itself=True)
        batcher = cls.__new__(cls)
        batcher._set_up(Batcher.from_env(environ, _seams=seams, **settings))
        return batcher

    def _set_up(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._begin_anew()
        at_fork(self)

    def _begin_anew(self) -> None:
        self._thread: LoopThread | None = None
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
        if self._thread is not None:
            keep_for_ever(self._thread)
        self._begin_anew()

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self._batcher.config

    # Producing.

    def push(self, event: object, *, session: Session | None = None) -> Admission:
        """Take an event for delivery, or say why not, as `Batcher.push` does. Never waits and never raises.

        The first one in a process begins the thread.
        """
        thread = self._thread
        if thread is None or not thread.is_running:
            self._begin_soon()
        return self._batcher.push(event, session=session)

    def put(
        self, event: object, *, session: Session | None = None, timeout: float | None = None
    ) -> Admission:
        """Do the same as `push`, but block until there is room, at most `timeout` seconds.

        Returns `Admission.ACCEPTED`, or `Admission.FILTERED` when `before_send` kept the event.

        Raises:
            EncodeError: This can never be an event: no mapping or Struct, or too large.
            ClosedError: The batcher is closing or closed.
            TimeoutError: There was no room in time.
            BatcherError: There is no room, and a callback waits for it, on the thread that would make it.
        """
        batcher = self._batcher
        offer = batcher._offer(event, session)
        if self._thread is None or not self._thread.is_running:
            self._begin_soon()
        if offer.admission is Admission.QUEUE_FULL:
            try:
                self._to_wait_on(timeout).call(batcher._wait_for_room, offer, timeout)
            except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
                raise TimeoutError("there was no room") from None
        return batcher._answer(offer)

    def session(
        self, properties: SessionProperties | Mapping[str, Any] | None = None, /, **more: Any
    ) -> Session:
        """Return a session to enter with `with`, or to pass as `session=`; see `Batcher.session`."""
        return self._batcher.session(properties, **more)

    # Watching.

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Block until everything pushed before is settled, at most `timeout` seconds, and say what became
        of it; see `Batcher.flush`. Works inside of a running event loop, which it keeps waiting.

        Raises:
            BatcherError: A callback of the batcher calls it, on the thread that would have to do it.
        """
        notice_fork(self._batcher.statistics().held)
        timeout = patience(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._is_closed and self.statistics().held:
            self._begin_soon()
        thread = self._thread
        if thread is None or thread.has_ended or not self._not_here(thread).is_up(timeout):
            return self._batcher._lifecycle.as_it_is()
        rest = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return thread.call(self._batcher.flush, rest, timeout=None if rest is None else rest + LAST_WORDS)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            return (
                self._batcher._lifecycle.as_it_is()
            )  # a callback holds the thread up, or it has ended meanwhile

    def statistics(self) -> Statistics:
        """Return a snapshot of the ledger, in which the numbers add up."""
        return self._batcher.statistics()

    def __repr__(self) -> str:
        return repr(getattr(self, "_batcher", "<Batcher not made>")).replace("Batcher", "BlockingBatcher", 1)

    # Life cycle.

    def start(self) -> Self:
        """Begin the thread and wait until it runs; also after a close. Does nothing when it runs already.

        Raises:
            BatcherError: It could not begin.
        """
        notice_fork(self._batcher.statistics().held)
        with self._lock:
            self._is_closed, self._is_owed_a_close = False, True
            thread = self._begin()
        if not thread.is_here and not thread.is_up(None):
            raise BatcherError("the batcher's thread could not begin") from thread.error
        return self

    def close(self, timeout: float | None = None) -> None:
        """Take nothing more, deliver what is held, and give the rest up after `timeout` seconds.

        `timeout` is `shutdown_timeout` when it is not given. Afterwards everything is settled and no thread
        is left. A Ctrl-C does not wait, but closing goes on.

        Raises:
            BatcherError: A callback of the batcher calls it, on the thread that would have to do it.
        """
        notice_fork(self._batcher.statistics().held)
        if self._thread is not None:
            self._not_here(self._thread)
        with self._lock:
            was_closed, self._is_closed, self._is_owed_a_close = self._is_closed, True, False
            thread = self._thread
            if not was_closed and self.statistics().held:
                thread = self._begin()
            if thread is not None and thread.is_up(None):
                with contextlib.suppress(concurrent.futures.CancelledError):
                    thread.result(thread.call_soon(self._batcher.aclose, timeout))
                thread.stop_soon()
                thread.join()
            self._batcher._lifecycle.abandon()
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @contextlib.contextmanager
    def invocation(self, *, timeout: float | None = None) -> Generator[None]:
        """Run one call of a serverless function inside: at its end flush for `timeout` seconds at most
        (`shutdown_timeout` if not given). Then no thread or connection is left, unless `start` was called,
        and what could not be sent waits for the next one.
        """
        with self._lock:
            self._invocations += 1
        try:
            yield
        finally:
            try:
                self.flush(self.config.shutdown.shutdown_timeout if timeout is None else timeout)
            finally:
                with self._lock:
                    self._invocations -= 1
                    if not self._invocations and not self._is_owed_a_close:
                        self._rest()

    def __del__(self) -> None:
        thread: LoopThread | None = getattr(self, "_thread", None)
        if thread is not None:
            with contextlib.suppress(concurrent.futures.CancelledError):
                thread.call_soon(_finish, self._batcher, thread, self.config.shutdown.shutdown_timeout)

    # The end of the program, see `ending`.

    def hasten(self) -> float:
        """Begin to close, if there are events held."""
        if self._thread is None or not self.statistics().held:
            return 0.0
        timeout = self.config.shutdown.shutdown_timeout
        deadline = time.monotonic() + timeout
        if not self._thread.is_up(timeout):
            return 0.0
        rest = max(0.0, deadline - time.monotonic())
        with contextlib.suppress(concurrent.futures.CancelledError):
            self._thread.call_soon(_finish, self._batcher, self._thread, rest)
            self._is_hastened = True
        return rest + LAST_WORDS

    @property
    def is_closing(self) -> bool:
        """Whether what `hasten` began goes on."""
        return self._is_hastened and self._thread is not None and not self._thread.has_ended

    def give_up(self) -> None:
        """Leave it to the batcher inside, which says so itself."""

    # The thread.

    def _begin(self) -> LoopThread:
        """Return the thread, begun if need be. With the lock."""
        if self._thread is None or not self._thread.is_running:
            self._is_beginning = True
            try:
                self._thread = LoopThread(functools.partial(_start, self._batcher))
            finally:
                self._is_beginning = False
        return self._thread

    def _begin_soon(self) -> None:
        """Begin the thread unless it runs, without waiting for it. Never raises."""
        if self._is_closed or self._is_beginning or not self._lock.acquire(blocking=False):
            return  # somebody else begins it; or this push interrupts that, as a signal handler's may
        try:
            self._begin_again()
        except Exception as error:  # no thread to be had
            self._thread, self._not_before = None, time.monotonic() + _PAUSE
            say(logging.ERROR, "the batcher's thread could not begin (%s)", type(error).__name__)
        finally:
            self._lock.release()

    def _begin_again(self) -> None:
        if self._thread is not None and self._thread.error is not None and not self._thread.is_running:
            raise self._thread.error
        if time.monotonic() >= self._not_before:
            self._begin()

    def _rest(self) -> None:
        """End the thread, and leave what is held to the next one. With the lock."""
        thread = self._thread
        if thread is not None and not thread.is_here and thread.is_up(LAST_WORDS):
            with contextlib.suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
                thread.call(self._batcher._lifecycle.rest, timeout=LAST_WORDS)
            thread.stop_soon()
            thread.join()

    def _not_here(self, thread: LoopThread) -> LoopThread:
        if thread.is_here:
            raise BatcherError("a callback of the batcher cannot wait for the batcher")
        return thread

    def _to_wait_on(self, timeout: float | None) -> LoopThread:
        thread = self._thread
        if thread is None or not self._not_here(thread).is_up(patience(timeout)):
            raise concurrent.futures.CancelledError
        return thread


async def _start(batcher: Batcher) -> None:
    """Start it without a debt: the end of the program closes it if nobody does."""
    await batcher._lifecycle.start(is_owed_a_close=False)
    batcher._has_warned_closed = False


async def _finish(batcher: Batcher, thread: LoopThread, timeout: float) -> None:
    await batcher.aclose(timeout)
    thread.stop_soon()
