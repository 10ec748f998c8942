"""Start, flush, close and start again: the runs of one batcher, over one intake and one ledger.

Nothing in here is bound to an event loop but the worker of the present run, so that a batcher made at
module level serves one `asyncio.run` after another.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import final

import anyio
from msgspec import Struct

from honeyhive_batcher.config import Config
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import Admission, Clock, Jitter, Phase
from honeyhive_batcher.errors import BatcherError
from honeyhive_batcher.hooks import Hooks
from honeyhive_batcher.runtime.ids import new_id
from honeyhive_batcher.runtime.reporter import Reporter
from honeyhive_batcher.runtime.transport import AiohttpTransport, Nowhere, Transport
from honeyhive_batcher.runtime.waiting import Line, Waiters, undisturbed
from honeyhive_batcher.runtime.worker import Worker


class FlushResult(Struct, frozen=True, kw_only=True):
    """What became of the events that were held when `flush` was called. True only when `ok`."""

    ok: bool
    """Whether the server confirmed every one of them."""
    delivered: int
    """Confirmed by the server."""
    dropped: int
    """Surely not delivered; `Statistics.dropped` has the reasons."""
    unconfirmed: int
    """Sent, and nobody knows whether they arrived."""
    held: int
    """Without a fate when the time was over, or when waiting on would have been in vain."""

    def __bool__(self) -> bool:
        return self.ok


def _transport(config: Config) -> Transport:
    return Nowhere() if config.endpoint.test_mode else AiohttpTransport(config.endpoint)


class Seams(Struct, frozen=True, kw_only=True):
    """Where time, chance and the network come in; tests put their own here."""

    clock: Clock = time.monotonic
    jitter: Jitter = random.random
    new_id: Callable[[], str] = new_id
    transport: Callable[[Config], Transport] = _transport


@final
class Lifecycle:
    """The present run of a batcher, if any, and the callers that wait for it."""

    def __init__(self, config: Config, hooks: Hooks, intake: Intake, seams: Seams) -> None:
        self._config = config
        self._hooks = hooks
        self._intake = intake
        self._seams = seams
        self._reporter = Reporter(config.endpoint.base_url)
        self._progress = Waiters()
        self._room = Line()
        self._engine: Engine | None = None
        self._worker: Worker | None = None
        self._is_owed_a_close = False  # it was started, and nobody has closed it since

    @property
    def state(self) -> str:
        """The state in one word or two."""
        return "not started" if self._engine is None else self._engine.phase.value

    @property
    def is_owed_a_close(self) -> bool:
        """Whether letting go of the batcher now would be a mistake of the program."""
        return self._is_owed_a_close or (self._engine is None and self._intake.ledger.held_events > 0)

    async def start(self) -> None:
        """Begin a run in the running event loop; go on with the one whose loop has ended.

        Raises:
            BatcherError: It runs in another event loop.
        """
        while (worker := self._running_worker()) is not None:
            if worker.loop is not asyncio.get_running_loop():
                raise BatcherError("this batcher runs in another event loop: close it there first")
            if self._engine is not None and self._engine.phase is Phase.OPEN:
                return
            assert worker.task is not None
            await asyncio.wait((worker.task,))  # it is being closed
        engine = self._engine
        if engine is None or engine.phase is Phase.CLOSED:
            if engine is not None:
                self._intake.reopen()
            engine = self._engine = self._new_engine()
        else:
            self._retire_worker()
            engine.lose_replies("its event loop has ended", self._seams.clock())
        self._is_owed_a_close = True
        new_id.renew()  # a server that forks in C, unseen by Python, starts its batcher in each child
        self._worker = Worker(
            engine,
            self._intake,
            self._seams.transport(self._config),
            hooks=self._hooks,
            reporter=self._reporter,
            progress=self._progress,
            room=self._room,
            shutdown_timeout=self._config.shutdown.shutdown_timeout,
            clock=self._seams.clock,
        )
        await self._worker.start()

    async def flush(self, timeout: float | None) -> FlushResult:
        """See `Batcher.flush`."""
        barrier = self._intake.raise_barrier()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    waiter = self._progress.register()
                    if not barrier.held or self._is_stalled():
                        break
                    await waiter
        except TimeoutError:
            pass
        finally:
            self._intake.lower_barrier(barrier)
        return FlushResult(
            ok=not (barrier.held or barrier.dropped or barrier.unconfirmed),
            delivered=barrier.delivered,
            dropped=barrier.dropped,
            unconfirmed=barrier.unconfirmed,
            held=barrier.held,
        )

    async def wait_for_room(self, admit: Callable[[], Admission], timeout: float | None) -> Admission:
        """Try `admit` whenever there may be room, until it answers anything but QUEUE_FULL.

        Raises:
            TimeoutError: There was no room in time.
        """
        place = self._room.join()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    waiter = place.renew()
                    admission = admit()  # after renewing: room that comes from now on is noticed
                    if admission is not Admission.QUEUE_FULL:
                        return admission
                    await waiter
        finally:
            self._room.leave(place)

    async def aclose(self, timeout: float | None) -> None:
        """See `Batcher.aclose`."""
        self._is_owed_a_close = False
        timeout = self._config.shutdown.shutdown_timeout if timeout is None else timeout
        worker = self._running_worker()
        if worker is None:
            self._abandon()
            return
        # Shielded from the scopes of anyio, which would cancel again and again, and patient with the
        # tasks of asyncio, which cancel once. The end is bounded all the same.
        with anyio.CancelScope(shield=True):
            if worker.loop is asyncio.get_running_loop():
                worker.drain(timeout)
                was_cancelled = await worker.ended()
            else:
                closing = asyncio.run_coroutine_threadsafe(self.aclose(timeout), worker.loop)
                was_cancelled = await undisturbed(asyncio.wrap_future(closing))
        if was_cancelled:
            raise asyncio.CancelledError

    def forget(self) -> None:
        """Deliver what is held and close, for a batcher that nobody can reach any more."""
        worker = self._running_worker()
        if worker is not None:
            worker.loop.call_soon_threadsafe(worker.drain, self._config.shutdown.shutdown_timeout)

    def _new_engine(self) -> Engine:
        return Engine(
            self._intake,
            max_in_flight=self._config.endpoint.max_in_flight,
            retry=self._config.retry,
            jitter=self._seams.jitter,
        )

    def _running_worker(self) -> Worker | None:
        """Return the worker if there is one and its loop turns."""
        worker = self._worker
        if worker is None or worker.task is None or worker.task.done() or not worker.loop.is_running():
            return None
        return worker

    def _retire_worker(self) -> None:
        if self._worker is not None:
            self._worker.retire()

    def _is_stalled(self) -> bool:
        worker = self._running_worker()
        return worker is None or worker.is_stalled

    def _abandon(self) -> None:
        """Settle what is held without a worker: there never was one, or its loop is gone."""
        if self._engine is None:
            self._engine = self._new_engine()
        if self._engine.phase is Phase.CLOSED:
            return
        before = self._intake.statistics()
        self._retire_worker()
        self._engine.abandon()
        self._progress.release_all()
        self._room.release_one()
        self._reporter.closed(before, self._intake.ledger, self._seams.clock())
