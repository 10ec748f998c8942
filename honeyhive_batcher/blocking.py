"""The same verbs for programs without an event loop: Flask, Django under WSGI, Celery, scripts, notebooks."""

# ruff: noqa: SLF001 - it is made of the inside of a `Batcher`

import concurrent.futures
import contextlib
import time
from collections.abc import Generator, Mapping
from typing import Any, Self, Unpack, final

import msgspec

from honeyhive_batcher.background import Background
from honeyhive_batcher.batcher import Batcher
from honeyhive_batcher.config import Config
from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Admission
from honeyhive_batcher.events import SessionProperties
from honeyhive_batcher.model_call import TimesCalls
from honeyhive_batcher.offer import checked
from honeyhive_batcher.producer import note_start
from honeyhive_batcher.runtime.flush_result import FlushResult
from honeyhive_batcher.runtime.fork import notice_fork
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.runtime.thread import LAST_WORDS, LoopThread
from honeyhive_batcher.runtime.waiting import patience
from honeyhive_batcher.secret import seal
from honeyhive_batcher.session import Session
from honeyhive_batcher.settings import Options
from honeyhive_batcher.unfinished import tell_unfinished


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

    def __init__(self, *, _seams: Seams = Seams(), **options: Unpack[Options]) -> None:  # noqa: B008 - frozen
        seal(options)
        seams = msgspec.structs.replace(_seams, starts_itself=True)
        self._set_up(Batcher(_seams=seams, **options))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **settings: Any) -> Self:
        """Make a batcher from the environment, as `Batcher.from_env` does.

        Raises:
            ConfigError: There is no usable API key, or an argument is wrong.
        """
        seal(settings)
        seams = msgspec.structs.replace(settings.pop("_seams", Seams()), starts_itself=True)
        batcher = cls.__new__(cls)
        batcher._set_up(Batcher.from_env(environ, _seams=seams, **settings))
        return batcher

    def _set_up(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._background = Background(batcher)
        note_start(self)  # it needs no start

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self._batcher.config

    # Producing.

    def push(self, event: object, *, session: Session | None = None) -> Admission:
        """Take an event for delivery, or say why not, as `Batcher.push` does. Never waits and never raises.

        The first one in a process begins the thread.
        """
        thread = self._background.thread
        if thread is None or not thread.is_running:
            self._background.begin_soon()
        return self._batcher.push(event, session=session)

    def put(
        self, event: object, *, session: Session | None = None, timeout: float | None = None
    ) -> Admission:
        """Do the same as `push`, but block until there is room, at most `timeout` seconds.

        Returns `Admission.ACCEPTED`, `Admission.FILTERED` when `before_send` kept the event, or
        `Admission.SAMPLED` when it is not in the sample.

        Raises:
            EncodeError: This can never be an event: no mapping or Struct, or too large.
            ClosedError: The batcher is closing or closed.
            TimeoutError: There was no room in time.
            BatcherError: There is no room, and a callback waits for it, on the thread that would make it.
        """
        offer = self._batcher._offer(event, session)
        self._background.begin_soon()
        if isinstance(offer, Admission):
            return offer
        thread = self._to_wait_on(timeout)
        with contextlib.suppress(concurrent.futures.CancelledError):
            return thread.call(self._batcher._wait_for_room, offer, timeout)
        if offer.admission is Admission.QUEUE_FULL:
            raise TimeoutError("the thread that would have made room has ended")
        return checked(offer.admission)

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
        if self.statistics().held:
            self._background.begin_soon()
        thread = self._background.elsewhere()
        if thread is None or thread.has_ended or not thread.is_up(timeout):
            return self._batcher._lifecycle.callers.as_it_is()
        rest = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return thread.call(self._batcher.flush, rest, timeout=None if rest is None else rest + LAST_WORDS)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            # A callback holds the thread up, or it has ended meanwhile.
            return self._batcher._lifecycle.callers.as_it_is()

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
        self._background.start()
        return self

    def close(self, timeout: float | None = None) -> None:
        """Take nothing more, deliver what is held, and give the rest up after `timeout` seconds.

        `timeout` is `shutdown_timeout` when it is not given. Afterwards everything is settled and no thread
        is left. A Ctrl-C does not wait, but closing goes on.

        Raises:
            BatcherError: A callback of the batcher calls it, on the thread that would have to do it.
        """
        notice_fork(self._batcher.statistics().held)
        tell_unfinished(self)
        self._background.close(timeout)

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
        with self._background.visited():
            try:
                yield
            finally:
                self.flush(self.config.shutdown.shutdown_timeout if timeout is None else timeout)

    def __del__(self) -> None:
        background: Background | None = getattr(self, "_background", None)
        if background is not None:
            background.forget()

    def _to_wait_on(self, timeout: float | None) -> LoopThread:
        """Return the thread that makes room; without one the event that waits is refused."""
        is_up = False
        try:
            thread = self._background.elsewhere()
            is_up = thread is not None and thread.is_up(patience(timeout))
        finally:
            if not is_up:
                self._batcher._intake.refuse(Admission.QUEUE_FULL)
        if thread is None or not is_up:
            raise TimeoutError("no thread began that would make room")
        return thread
