"""Who waits for the worker, in any event loop: `flush` until all is settled, `put` until there is room."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, final

from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import Admission, Clock
from honeyhive_batcher.runtime.flush_result import FlushResult
from honeyhive_batcher.runtime.waiting import LOOK, Line, Vigil, Waiters, patience, running_loop

if TYPE_CHECKING:
    from honeyhive_batcher.runtime.worker import Worker


@final
class Callers:
    """The callers of one batcher, over all its runs.

    `worker` returns the one of the present run, or of the last; `patience` is how many seconds a loop may
    stand still between two of its callers.
    """

    def __init__(
        self, intake: Intake, worker: Callable[[], "Worker | None"], *, patience: float, clock: Clock
    ) -> None:
        self._intake = intake
        self._worker = worker
        self._patience = patience
        self._clock = clock
        self._turns = 0  # of the worker, at the last look
        self.progress = Waiters()
        self.room = Line()

    async def flush(self, timeout: float | None) -> FlushResult:
        """See `Batcher.flush`."""
        barrier = self._intake.raise_barrier()
        with contextlib.suppress(TimeoutError):
            try:
                async with asyncio.timeout(patience(timeout)):
                    while True:
                        waiter = self.progress.register()  # before the look, so that no release is missed
                        try:
                            if not barrier.held or self._waits_in_vain():
                                break
                            await self._released(waiter)
                        finally:
                            self.progress.forget(waiter)
            finally:
                self._intake.lower_barrier(barrier)
        return FlushResult.of(barrier)

    def as_it_is(self) -> FlushResult:
        """Return what a flush that does not wait has to say."""
        barrier = self._intake.raise_barrier()
        self._intake.lower_barrier(barrier)
        return FlushResult.of(barrier)

    async def wait_for_room(self, admit: Callable[[], Admission], timeout: float | None) -> Admission:
        """Try `admit` whenever there may be room, until it answers anything but QUEUE_FULL.

        Raises:
            TimeoutError: There was no room in time, or the event loop that would have made it has ended.
        """
        timeout = patience(timeout)
        vigil: Vigil | None = None
        place = self.room.join()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    waiter = place.renew()
                    if self.room.is_first(place):
                        admission = admit()  # after renewing: room that comes from now on is noticed
                        if admission is not Admission.QUEUE_FULL:
                            return admission
                    if timeout is None:
                        vigil = self._vigil(vigil)
                        if vigil is not None and vigil.is_over():
                            raise TimeoutError("the batcher's event loop has ended: nobody makes room")
                    await self._released(waiter)
        finally:
            self.room.leave(place)

    def has_turned(self) -> bool:
        """Whether the running loop surely had a turn since this was last asked."""
        worker, before = self._worker(), self._turns
        self._turns = 0 if worker is None or worker.loop is not running_loop() else worker.turns
        return self._turns > before

    def _waits_in_vain(self) -> bool:
        worker = self._worker()
        return worker is None or not worker.is_running or worker.is_stalled

    async def _released(self, waiter: asyncio.Future[None]) -> None:
        """Wait until the waiter is released, or for a while: a worker in another loop, whose loop is
        stopped or closed, can tell nobody.
        """
        worker = self._worker()
        if worker is None or worker.loop is asyncio.get_running_loop():
            await waiter
        else:
            await asyncio.wait((waiter,), timeout=LOOK)

    def _vigil(self, vigil: Vigil | None) -> Vigil | None:
        """Return the watch over the loop of the present run, if that is another one and has not ended."""
        worker = self._worker()
        if worker is None or worker.has_ended or worker.loop is asyncio.get_running_loop():
            return None
        if vigil is not None and vigil.loop is worker.loop:
            return vigil
        return Vigil(worker.loop, self._patience, self._clock)
