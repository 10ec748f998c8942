"""Start, flush, close and start again: the runs of one batcher, over one intake and one ledger.

Nothing in here is bound to an event loop but the worker of the present run, so that a batcher made at
module level serves one `asyncio.run` after another.
"""

import asyncio
import logging
import math
import threading
import warnings
from collections.abc import Iterable
from typing import final

import anyio

from honeyhive_batcher.config import Config
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import Attempt, Phase
from honeyhive_batcher.errors import BatcherError
from honeyhive_batcher.hooks import Hooks
from honeyhive_batcher.runtime.callbacks import Callbacks
from honeyhive_batcher.runtime.callers import Callers
from honeyhive_batcher.runtime.ending import at_end
from honeyhive_batcher.runtime.fork import keep_for_ever
from honeyhive_batcher.runtime.reporter import Reporter, say
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.runtime.unstarted import Unstarted
from honeyhive_batcher.runtime.waiting import LONGEST, LOOK, Vigil, call_in
from honeyhive_batcher.runtime.worker import Worker


@final
class Lifecycle:
    """The present run of a batcher, if any, and the callers that wait for it."""

    def __init__(self, config: Config, hooks: Hooks, seams: Seams) -> None:
        self._config, self._hooks = config, hooks
        self.intake = self._intake = Intake(config.queue, config.batch)
        self.intake.ledger.keep_settlements = any(
            (hooks.on_delivered, hooks.on_dropped, hooks.on_unconfirmed)
        )
        self._callbacks = Callbacks(hooks, self._intake)
        self._seams = seams
        self._reporter = Reporter(config.endpoint.base_url)
        self._engine: Engine | None = None
        self._worker: Worker | None = None
        self.callers = Callers(
            self.intake,
            lambda: self._worker,
            patience=config.shutdown.shutdown_timeout,
            clock=seams.clock,
        )
        self._is_owed_a_close = False  # it was started, and nobody has closed it since
        self.invocations = 0
        """How many are under way; see `Invocation`."""
        self._starting = threading.RLock()  # two threads, each with a loop of its own, may start it at once
        if not seams.starts_itself:
            self._intake.wake, self._intake.is_unattended = Unstarted(seams.clock).notice, True
        at_end(self)

    @property
    def state(self) -> str:
        """The state in one word or two."""
        return "not started" if self._engine is None else self._engine.phase.value

    async def start(self, *, is_owed_a_close: bool = True) -> None:
        """Begin a run in the running event loop; go on with the one whose loop has ended.

        Raises BatcherError when it runs in another event loop.
        """
        anyio.CancelScope()  # what this imports is imported now, and not on the host's loop while closing
        while True:
            with self._starting:
                worker = self._present_worker()
                if worker is None:
                    worker = self._worker = self._take_over()
                    break
            if worker.loop is not asyncio.get_running_loop():
                raise BatcherError("this batcher runs in another event loop: close it there first")
            if not worker.begun.done():
                await asyncio.wait((worker.begun,))  # it is being started
            elif self._engine is not None and self._engine.phase is Phase.OPEN and not worker.is_retired:
                self._is_owed_a_close |= is_owed_a_close
                return
            elif worker.task is not None:
                await asyncio.wait((worker.task,))  # it is being closed, or goes to rest
        try:
            await worker.start()
        except BaseException:
            self._worker = None if self._worker is worker else self._worker
            raise
        # If not open, it was closed meanwhile.
        self._is_owed_a_close = is_owed_a_close and worker.engine.phase is Phase.OPEN

    async def aclose(self, timeout: float | None) -> None:
        """See `Batcher.aclose`."""
        self._is_owed_a_close = False
        if timeout is None or math.isnan(timeout):
            timeout = self._config.shutdown.shutdown_timeout
        timeout = min(max(0.0, timeout), LONGEST)
        worker = self._present_worker()
        if worker is None or (worker.task is None and worker.loop is asyncio.get_running_loop()):
            self.abandon()
            return
        # Shielded from the scopes of anyio, which would cancel again and again, and patient with the
        # tasks of asyncio, which cancel once. The end is bounded all the same.
        with anyio.CancelScope(shield=True):
            if worker.loop is asyncio.get_running_loop():
                worker.drain(timeout)
                was_cancelled = await worker.ended()
            else:
                was_cancelled = await self._close_elsewhere(worker, timeout)
        if self._engine is not None and self._engine.phase is not Phase.CLOSED:
            self.abandon()  # its start was cancelled meanwhile
        if was_cancelled:
            raise asyncio.CancelledError

    def abandon(self) -> None:
        """Close, and settle what is held, unless it runs in some loop."""
        self._abandon()
        self._callbacks.call()

    async def rest(self) -> None:
        """End a run in the running loop that nobody owes a close; what is held waits for the next start."""
        worker = self._running_worker()
        if worker is not None and worker.loop is asyncio.get_running_loop() and not self._is_owed_a_close:
            await worker.rest()

    async def _close_elsewhere(self, worker: Worker, timeout: float) -> bool:
        """Close a run in another loop, which may end meanwhile; return whether the caller was cancelled."""
        was_cancelled = False
        vigil = Vigil(worker.loop, timeout, self._seams.clock)
        call_in(worker.loop, worker.drain, timeout)
        while True:
            waiter = self.callers.progress.register()
            try:
                if worker.has_ended or self._worker is not worker:
                    break
                if vigil.is_over():
                    self.abandon()
                    break
                await asyncio.wait((waiter,), timeout=LOOK)
            except asyncio.CancelledError:
                was_cancelled = True
            finally:
                self.callers.progress.forget(waiter)
        return was_cancelled

    def forget(self, batcher: object) -> None:
        """Deliver what is held and close, for a batcher that nobody can reach any more; warn about it."""
        held = self._intake.ledger.held_events
        is_closed = self._engine is not None and self._engine.phase is Phase.CLOSED
        if not self._is_owed_a_close and (is_closed or not held):
            return
        worker = self._worker
        if worker is not None and not worker.has_ended and not worker.loop.is_closed():
            worker.owner = self  # at the end of the program somebody has to speak for it
            call_in(worker.loop, worker.drain, self._config.shutdown.shutdown_timeout)
        else:
            self.give_up()
        warnings.warn(
            f"a Batcher was not closed, with {held} events held: use `async with`, or `await aclose()`",
            ResourceWarning,
            stacklevel=3,
            source=batcher,
        )

    def hasten(self) -> float:
        """Begin to close a run in the loop of another thread, if it holds events."""
        worker = self._running_worker()
        if worker is None or not self._intake.ledger.held_events:
            return 0.0
        timeout = self._config.shutdown.shutdown_timeout
        call_in(worker.loop, worker.drain, timeout)
        return timeout + LOOK

    @property
    def is_closing(self) -> bool:
        """Whether a run in the loop of another thread still holds events."""
        return self._running_worker() is not None and self._intake.ledger.held_events > 0

    def give_up(self) -> None:
        """Settle what is held, because nobody will send it any more, and say so."""
        if self._worker is not None and not self._worker.has_ended:
            self._worker.retire()
            keep_for_ever(self._worker)  # neither Python nor aiohttp has to complain, too
        held = self._intake.ledger.held_events
        if held and self._engine is None:
            text = "a Batcher was never started: %d events are lost"
            say(logging.WARNING, text, held, kind="never_started", lost=held)
            self._engine = self._new_engine()
            self._engine.abandon()
        elif held:
            self._abandon()

    def _take_over(self) -> Worker:
        """Return a worker for the running loop, which goes on with what the one before it has left."""
        engine, left = self._engine, list[Attempt]()
        if engine is not None:
            if engine.phase is not Phase.CLOSED:  # its loop has ended
                if self._worker is not None:
                    self._worker.retire()
                left = engine.hand_over(self._seams.clock())
            self._intake.reopen()
        engine = self._engine = self._new_engine(left)
        return Worker(
            engine,
            self._intake,
            self._seams.transport(self._config),
            callbacks=self._callbacks,
            reporter=self._reporter,
            progress=self.callers.progress,
            room=self.callers.room,
            shutdown_timeout=self._config.shutdown.shutdown_timeout,
            clock=self._seams.clock,
            cost=self._hooks.cost,
        )

    def _new_engine(self, left: Iterable[Attempt] = ()) -> Engine:
        return Engine(
            self._intake,
            max_in_flight=self._config.endpoint.max_in_flight,
            retry=self._config.retry,
            jitter=self._seams.jitter,
            left=left,
        )

    def _present_worker(self) -> Worker | None:
        """Return the worker that runs, or is being started, if its loop turns."""
        worker = self._worker
        return None if worker is None or worker.has_ended or not worker.loop.is_running() else worker

    def _running_worker(self) -> Worker | None:
        """Return the worker if there is one and its loop turns."""
        return self._worker if self._worker is not None and self._worker.is_running else None

    def _abandon(self) -> None:
        """Settle what is held without a worker: there never was one, or its loop is gone."""
        with self._starting:  # of two threads that close it, or one that starts it, one comes first
            if self._running_worker() is not None:
                return
            if self._engine is None:
                self._engine = self._new_engine()
            if self._worker is not None:
                self._worker.retire()
            if self._engine.phase is Phase.CLOSED:
                return
            before = self._intake.statistics()
            self._engine.abandon()
        self.callers.progress.release_all()
        self.callers.room.release_one()
        self._reporter.closed(before, self._intake.ledger, self._seams.clock())
