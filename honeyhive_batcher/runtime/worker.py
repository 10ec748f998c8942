"""The only loop: begins what the engine says, sleeps until it says, and tells those who wait.

The worker holds no reference to the `Batcher`, so that one which is forgotten can be noticed.
"""

import asyncio
import contextlib
import time
from typing import final

from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Attempt, Clock, DropReason, Failure, Phase, Reply
from honeyhive_batcher.errors import InternalError
from honeyhive_batcher.runtime.alarm import Alarm
from honeyhive_batcher.runtime.callbacks import Callbacks
from honeyhive_batcher.runtime.fork import at_fork, keep_for_ever
from honeyhive_batcher.runtime.pricing import Cost, Pricing
from honeyhive_batcher.runtime.reporter import Reporter
from honeyhive_batcher.runtime.sends import Sends, quiet_task
from honeyhive_batcher.runtime.transport import Nowhere, Transport
from honeyhive_batcher.runtime.waiting import Line, Waiters, undisturbed

_LAST_WORDS = 1.0
"""Seconds that cancelled requests get to end after the run is over, and the transport after them."""

_running: set["Worker"] = set()
"""A loop knows its tasks only weakly: without this a worker that is idle could be collected as garbage
together with a batcher that is forgotten, in the midst of its life."""


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
        callbacks: Callbacks,
        reporter: Reporter,
        progress: Waiters,
        room: Line,
        shutdown_timeout: float,
        clock: Clock,
        cost: Cost | None = None,
    ) -> None:
        self.engine = engine
        self.loop = asyncio.get_running_loop()
        self._intake = intake
        self._transport = transport
        self._callbacks = callbacks
        self._reporter = reporter
        self._progress = progress
        self._room = room
        self._shutdown_timeout = shutdown_timeout
        self._clock = clock
        # Half of the time to close in: a function that hangs must not cost what could have been delivered.
        self._pricing = Pricing(cost, intake.ledger, patience=shutdown_timeout / 2)
        self._sends = Sends(self.loop, transport, self._complete, self._pricing)
        self._alarm = Alarm(self.loop, clock)
        self._deadline: float | None = None  # when a drain ends; None while the run is open
        self._before_drain: Statistics | None = None
        self._failure: Exception | None = None
        self._was_interrupted = False
        self._has_let_go = False
        self.is_retired = False  # whether the engine was left to another worker
        self.turns = 0  # how often it has looked for work: its loop has turned at least as often
        self.task: asyncio.Task[None] | None = None
        self.begun = self.loop.create_future()
        """Done when `start` is: it runs, or never will."""
        self.owner: object = None
        """Whatever has to live as long as this runs."""

    async def start(self) -> None:
        """Open the transport and begin to run. Cancelled, it has not begun, and leaves nothing behind."""
        try:
            await self._transport.open()
            self._intake.wake = self._alarm.ring_soon
            self._intake.is_unattended = False
            at_fork(self)
            self._launch()
            # Its first step: `asyncio.run` may end right after this, and a task that is cancelled before
            # its first step never runs.
            await asyncio.sleep(0)
        except BaseException:
            if self._deadline is None or self.task is None:  # else it is being closed, and that goes on
                self.retire()
                self._alarm.ring()
            if self.loop.is_closed():
                raise  # destroyed with its loop, in which nothing can be awaited
            if self.task is None:
                await undisturbed(quiet_task(self.loop, self._let_go(), "end"))
            await self.ended()
            raise
        finally:
            if not self.loop.is_closed():
                self.begun.set_result(None)

    def _launch(self) -> None:
        self.task = quiet_task(self.loop, self._run(), "worker")
        self.task.add_done_callback(self._ended)
        _running.add(self)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Run after all if the task never ran, or was interrupted: by a Ctrl-C that no one else caught."""
        if task is not self.task:
            return
        if task.cancelled() or task.exception() is not None:
            self._was_interrupted = True
            self._launch()
            self.drain(self._shutdown_timeout)
        else:
            _running.discard(self)
            self._progress.release_all()  # who closes it from another loop waits for this

    @property
    def has_ended(self) -> bool:
        """Whether the run is over and everything let go of. From any thread."""
        task = self.task
        return task is not None and task.done() and not task.cancelled() and task.exception() is None

    @property
    def is_running(self) -> bool:
        """Whether it was begun and has not ended, and its loop turns. From any thread."""
        return self.task is not None and not self.has_ended and self.loop.is_running()

    async def ended(self) -> bool:
        """Wait for the end of the run whoever cancels the caller; return whether somebody did."""
        was_cancelled = False
        while self.task is not None and not self.has_ended:
            if self.task.done():  # nobody else may come to it: a Ctrl-C that strikes a callback costs it
                self._ended(self.task)
            was_cancelled |= await undisturbed(self.task)
        return was_cancelled

    def drain(self, timeout: float) -> None:
        """Begin to end the run: deliver what is held, and give the rest up after `timeout` seconds.

        Called again it can only bring the end nearer. In the worker's own thread.
        """
        if self.is_retired:
            return
        deadline = self._clock() + timeout
        if self._deadline is None:
            self._before_drain = self._intake.statistics()
            self.engine.drain()
            self._deadline = deadline  # last: a Ctrl-C may strike before it, and then all this is done again
        self._deadline = min(self._deadline, deadline)
        self._alarm.ring_soon()

    def retire(self) -> None:
        """Leave the engine to another worker: should this one's loop ever move again, it does nothing, and no
        reply will come to anything in flight.
        """
        if not self.is_retired:
            self.is_retired = True
            self._sends.take_back()
            for attempt, began_at in list(self.engine.in_flight.items()):
                # As if at once: the time in which nobody could try again counts for nothing.
                self.engine.complete(attempt, self._sends.last_word(attempt), began_at)
        if self.loop.is_closed():
            _running.discard(self)
            self._transport.abandon()
            self._pricing.close()

    async def rest(self) -> None:
        """End the run, and leave what is held to the next one. In the worker's own loop."""
        self.retire()
        self._callbacks.call()
        self._alarm.ring()
        await self.ended()

    def after_fork(self) -> None:
        """Leave everything to the parent, in a child of it."""
        self.is_retired = True
        _running.discard(self)
        keep_for_ever((self.loop, self.task, self._sends, self._transport))
        self._transport = Nowhere()
        self._sends = Sends(self.loop, self._transport, self._complete, self._pricing)

    @property
    def is_stalled(self) -> bool:
        """Whether waiting for progress is in vain: the run is over, or a setting is wrong."""
        return self.is_retired or self.engine.phase is Phase.CLOSED or self.engine.is_stalled

    async def _run(self) -> None:
        try:
            if self._was_interrupted:
                self._reclaim()
            while not self.is_retired and not self._is_over():
                self.turns += 1
                self._alarm.set()  # what happens from here on cuts the sleep short
                for attempt in self.engine.poll(self._clock()):
                    self._sends.begin(attempt)
                self._tell()
                if self._failure is not None or self._would_wait_in_vain():
                    break
                try:
                    await self._alarm.sleep_until(self._next_instant())
                except asyncio.CancelledError:
                    # Somebody cancels all tasks: `asyncio.run` at its end, a server at its second
                    # Ctrl-C. What is held gets its bounded chance all the same.
                    if not self.is_retired:
                        self.drain(self._shutdown_timeout)
        except Exception as error:  # our own bug; promise 1 says what follows, and in which order
            self._failure = error
        if not self.is_retired:
            self._end()
        self._sends.cancel()
        while not self._has_let_go:  # a task that is cancelled before its first step never runs
            await undisturbed(quiet_task(self.loop, self._let_go(), "end"))

    def _reclaim(self) -> None:
        """Have given out again what the engine gave out and an interruption kept from being begun."""
        if self.is_retired:
            return
        self.engine.recover()
        for attempt in list(self.engine.in_flight):
            if not self._sends.has(attempt):
                self._complete(attempt, Failure(cause="interrupted before it began", unsent=True))

    def _is_over(self) -> bool:
        """Whether draining is done, by its success or by its deadline."""
        if self._deadline is None:
            return False
        return self._intake.ledger.held_events == 0 or self._clock() >= self._deadline or self.is_stalled

    def _would_wait_in_vain(self) -> bool:
        """Whether nothing is under way and nothing can be sent before draining has to end."""
        if self._deadline is None or self._intake.ledger.in_flight:
            return False
        wake_at = self.engine.wake_at()
        return wake_at is None or wake_at > self._deadline

    def _next_instant(self) -> float | None:
        # The log has nothing to say while draining: all of it comes in one line at the end.
        other = self._reporter.due_at(self._intake.ledger) if self._deadline is None else self._deadline
        instants = (self.engine.wake_at(), other)
        return min((instant for instant in instants if instant is not None), default=None)

    def _complete(self, attempt: Attempt, reply: Reply) -> None:
        if self.is_retired or attempt not in self.engine.in_flight:
            return  # it is settled, or was taken over; or an interruption has this told twice
        delivered = self._intake.ledger.delivered
        try:
            self.engine.complete(attempt, reply, self._clock())
        except Exception as error:  # the worker raises it, where it is dealt with
            self._failure = error
        if self._intake.ledger.delivered > delivered:
            self._intake.ledger.last_delivery_at = time.time()
        self._callbacks.call()  # now, so that a flush that sees the fates returns after them
        self._alarm.ring()

    def _tell(self) -> None:
        """Tell the callbacks, who waits, and the log."""
        self._callbacks.call()
        self._progress.release_all()
        self._room.release_one()
        self._intake.is_told = True  # first: what is lost from here on is told now, or wakes
        self._reporter.observe(self._intake.ledger, self._clock(), is_closing=self._deadline is not None)
        if self._reporter.owes_a_line(self._intake.ledger):
            self._intake.is_told = False  # there is an instant for it

    def _end(self) -> None:
        """Settle the rest, release who waits, and log how it ended."""
        before = self._before_drain or self._intake.statistics()
        self._deadline = self._clock()
        try:
            for attempt in self._sends.unsent():
                self._complete(attempt, Failure(cause="closed before it was sent", unsent=True))
            self.engine.abandon(DropReason.SHUTDOWN if self._failure is None else DropReason.INTERNAL)
        except Exception as error:  # not even that: who waits is released all the same
            self._failure = self._failure or error
            self.engine.phase = Phase.CLOSED
            self._intake.close()
        if self._failure is not None:
            self._intake.ledger.last_error = f"internal error ({type(self._failure).__name__})"
            self._reporter.failed(self._failure)
        self._tell()
        self._reporter.closed(before, self._intake.ledger, self._clock())

    async def _let_go(self) -> None:
        """Let go of all requests and connections, within bounds."""
        self._has_let_go = True
        self._pricing.close()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sends.ended(_LAST_WORDS)
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._transport.close()
        except Exception:  # a transport that cannot even close is no reason to hurt the host
            self._reporter.failed(InternalError("the transport could not be closed"))
