"""The only loop: begins what the engine says, sleeps until it says, and tells those who wait.

The worker holds no reference to the `Batcher`, so that one which is forgotten can be noticed.
"""

import asyncio
import contextvars
import threading
import time
from typing import final

from honeyhive_batcher.config import Hooks
from honeyhive_batcher.core import wire
from honeyhive_batcher.core.engine import Engine, Phase
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Attempt, Clock, DropReason, Failure, Fate, Reply, Settlement
from honeyhive_batcher.errors import InternalError
from honeyhive_batcher.runtime.reporter import Reporter
from honeyhive_batcher.runtime.transport import Transport
from honeyhive_batcher.runtime.waiting import Waiters

_LAST_WORDS = 1.0
"""Seconds that cancelled requests and the transport get to end after the run is over."""


@final
class Worker:
    """Runs one engine in one event loop.

    Nothing that happens in here raises into the host, cancels it or makes it wait: a failure closes the
    intake, settles what is held, releases who waits, and is logged once, in this order.
    """

    def __init__(
        self,
        engine: Engine,
        intake: Intake,
        transport: Transport,
        *,
        hooks: Hooks,
        reporter: Reporter,
        progress: Waiters,
        room: Waiters,
        shutdown_timeout: float,
        clock: Clock,
    ) -> None:
        self.engine = engine
        self.loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._intake = intake
        self._transport = transport
        self._hooks = hooks
        self._reporter = reporter
        self._progress = progress
        self._room = room
        self._shutdown_timeout = shutdown_timeout
        self._clock = clock
        self._sends: set[asyncio.Task[None]] = set()
        self._sleep: asyncio.Future[None] | None = None
        self._is_woken = False
        self._deadline: float | None = None  # when a drain ends; None while the run is open
        self._before_drain: Statistics | None = None
        self._failure: Exception | None = None
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the transport and begin to run."""
        await self._transport.open()
        self._intake.wake = self.wake
        # An empty context: what is bound where the batcher happens to be started (a session, a trace)
        # does not belong to everything it sends.
        self.task = self.loop.create_task(
            self._run(), name="honeyhive_batcher.worker", context=contextvars.Context()
        )

    def wake(self) -> None:
        """Have the engine looked at soon. From any thread."""
        if threading.get_ident() == self._thread_id:
            self._wake()
            return
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            pass  # the loop is closed: the next start takes over what is held

    def drain(self, timeout: float) -> None:
        """Begin to end the run: deliver what is held, and give the rest up after `timeout` seconds.

        Called again it can only bring the end nearer. In the worker's own thread.
        """
        deadline = self._clock() + timeout
        if self._deadline is None:
            self._before_drain = self._intake.statistics()
            self._deadline = deadline
            self.engine.drain()
        self._deadline = min(self._deadline, deadline)
        self._room.release_all()
        self.wake()

    @property
    def is_stalled(self) -> bool:
        """Whether waiting for progress is in vain: the run is over, or a setting is wrong."""
        return self.engine.phase is Phase.CLOSED or self.engine.is_stalled

    def _wake(self) -> None:
        self._is_woken = True
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    async def _run(self) -> None:
        try:
            while not self._is_over():
                self._is_woken = False
                for attempt in self.engine.poll(self._clock()):
                    self._begin(attempt)
                self._tell()
                if self._failure is not None:
                    raise self._failure
                try:
                    await self._sleep_until(self._next_instant())
                except asyncio.CancelledError:
                    # Somebody cancels all tasks: `asyncio.run` at its end, a server at its second
                    # Ctrl-C. What is held gets its bounded chance all the same.
                    self.drain(self._shutdown_timeout)
        except Exception as error:  # our own bug; promise 1 says what follows, and in which order
            self._failure = error
            self._intake.ledger.last_error = f"internal error ({type(error).__name__})"
        await self._end()

    def _is_over(self) -> bool:
        """Whether draining is done, or going on with it is in vain."""
        if self._deadline is None:
            return False
        if self._intake.ledger.held_events == 0 or self._clock() >= self._deadline or self.is_stalled:
            return True
        wake_at = self.engine.wake_at()
        return not self._sends and (wake_at is None or wake_at > self._deadline)

    def _next_instant(self) -> float | None:
        instants = (self.engine.wake_at(), self._deadline, self._reporter.due_at(self._intake.ledger))
        return min((instant for instant in instants if instant is not None), default=None)

    async def _sleep_until(self, instant: float | None) -> None:
        if self._is_woken:
            instant = float("-inf")  # woken by a callback while the engine was being looked at
        delay = None if instant is None else instant - self._clock()
        if delay is not None and delay <= 0:
            await asyncio.sleep(0)  # let the host have its turn
            return
        self._sleep = self.loop.create_future()
        timer = None if delay is None else self.loop.call_later(delay, self._wake)
        try:
            await self._sleep
        finally:
            self._sleep = None
            if timer is not None:
                timer.cancel()

    def _begin(self, attempt: Attempt) -> None:
        send = self.loop.create_task(
            self._send(attempt), name="honeyhive_batcher.send", context=contextvars.Context()
        )
        self._sends.add(send)
        send.add_done_callback(self._sends.discard)
        # A task that is cancelled before its first step never runs: then nothing was sent.
        send.add_done_callback(lambda done: self._complete_cancelled(attempt) if done.cancelled() else None)

    def _complete_cancelled(self, attempt: Attempt) -> None:
        self._complete(attempt, Failure(cause="cancelled before it began", unsent=True))

    async def _send(self, attempt: Attempt) -> None:
        reply: Reply
        try:
            reply = await self._transport.send(wire.build_request(attempt.batch))
        except asyncio.CancelledError:
            reply = Failure(cause="cancelled", unsent=False)  # most such requests have arrived: measured
        except Exception as error:  # a transport of somebody else's; ours does not raise
            reply = Failure(cause=f"the transport raised {type(error).__name__}", unsent=False)
        self._complete(attempt, reply)

    def _complete(self, attempt: Attempt, reply: Reply) -> None:
        if self.engine.phase is Phase.CLOSED:
            return  # it was settled as unconfirmed when the run ended
        delivered = self._intake.ledger.delivered
        try:
            self.engine.complete(attempt, reply, self._clock())
        except Exception as error:  # the worker raises it, where it is dealt with
            self._failure = error
        if self._intake.ledger.delivered > delivered:
            self._intake.ledger.last_delivery_at = time.time()
        self._wake()

    def _tell(self) -> None:
        """Tell the callbacks, who waits, and the log."""
        for settlement in self._intake.take_settlements():
            self._call_back(settlement)
        self._progress.release_all()
        self._room.release_one()
        self._reporter.observe(self._intake.ledger, self._clock())

    def _call_back(self, settlement: Settlement) -> None:
        hooks = self._hooks
        try:
            match settlement.fate:
                case Fate.DELIVERED if hooks.on_delivered is not None:
                    hooks.on_delivered(settlement.event_ids)
                case Fate.DROPPED if hooks.on_dropped is not None and settlement.reason is not None:
                    hooks.on_dropped(settlement.event_ids, settlement.reason)
                case Fate.UNCONFIRMED if hooks.on_unconfirmed is not None:
                    hooks.on_unconfirmed(settlement.event_ids)
                case _:
                    pass
        except Exception:  # promise 1: a callback that raises is counted and hurts nothing
            self._intake.ledger.callback_errors += 1

    async def _end(self) -> None:
        """Settle the rest and let go of everything, undisturbed by cancellations, within bounds."""
        before = self._before_drain or self._intake.statistics()
        self.engine.abandon(DropReason.SHUTDOWN if self._failure is None else DropReason.INTERNAL)
        self._tell()
        self._room.release_all()
        if self._failure is not None:
            self._reporter.failed(self._failure)
        self._reporter.closed(before, self._intake.statistics(), self._intake.ledger, self._clock())
        for send in list(self._sends):
            send.cancel()
        await undisturbed(self.loop.create_task(self._let_go(), context=contextvars.Context()))

    async def _let_go(self) -> None:
        try:
            async with asyncio.timeout(_LAST_WORDS):
                if self._sends:
                    await asyncio.wait(list(self._sends))
                await self._transport.close()
        except Exception:  # a transport that cannot even close is no reason to hurt the host
            self._reporter.failed(InternalError("the transport could not be closed"))


async def undisturbed(task: asyncio.Task[None]) -> bool:
    """Wait for the end of `task` whoever cancels the caller meanwhile; return whether somebody did."""
    was_cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            was_cancelled = True
    return was_cancelled
