"""The only loop: begins what the engine says, sleeps until it says, and tells those who wait.

The worker holds no reference to the `Batcher`, so that one which is forgotten can be noticed.
"""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Coroutine
from typing import Any, final

from honeyhive_batcher.core import wire
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Attempt, Clock, DropReason, Failure, Fate, Phase, Reply, Settlement
from honeyhive_batcher.errors import InternalError
from honeyhive_batcher.hooks import Hooks
from honeyhive_batcher.runtime.reporter import Reporter
from honeyhive_batcher.runtime.transport import Transport
from honeyhive_batcher.runtime.waiting import Line, Waiters, undisturbed

_LAST_WORDS = 1.0
"""Seconds that cancelled requests get to end after the run is over, and the transport after them."""

_running: set[asyncio.Task[None]] = set()
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
        hooks: Hooks,
        reporter: Reporter,
        progress: Waiters,
        room: Line,
        shutdown_timeout: float,
        clock: Clock,
    ) -> None:
        self.engine = engine
        self.loop = asyncio.get_running_loop()
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
        self._deadline: float | None = None  # when a drain ends; None while the run is open
        self._before_drain: Statistics | None = None
        self._failure: Exception | None = None
        self._failed_attempt: Attempt | None = None
        self._has_let_go = False
        self._is_retired = False
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the transport and begin to run."""
        await self._transport.open()
        self._intake.wake = self.wake
        self._launch()

    def _launch(self) -> None:
        self.task = self._task(self._run(), "worker")
        self.task.add_done_callback(self._relaunch)
        _running.add(self.task)

    def _relaunch(self, ended: asyncio.Task[None]) -> None:
        """Run after all: a task that is cancelled before its first step never runs."""
        _running.discard(ended)
        if ended.cancelled():
            self._launch()
            self.drain(self._shutdown_timeout)

    async def ended(self) -> bool:
        """Wait for the end of the run whoever cancels the caller; return whether somebody did."""
        was_cancelled = False
        while self.task is not None and not self.task.done():
            was_cancelled |= await undisturbed(self.task)
        return was_cancelled

    def wake(self) -> None:
        """Have the engine looked at soon. From any thread."""
        # Thread-safe also in the loop's own thread: a push from a signal handler or a `__del__` may come
        # while the loop sleeps in its selector, and only this rouses it. It is called once a batch.
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RecursionError:
            raise  # the intake does it later
        except RuntimeError:
            pass  # its loop is closed: the next start takes over

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
        self.wake()

    def retire(self) -> None:
        """Leave the engine to another worker, because this one's loop stands still. Should it ever move
        again, nothing happens in it.
        """
        self._is_retired = True
        if self.task is not None and self.loop.is_closed():
            _running.discard(self.task)

    @property
    def is_stalled(self) -> bool:
        """Whether waiting for progress is in vain: the run is over, or a setting is wrong."""
        return self.engine.phase is Phase.CLOSED or self.engine.is_stalled

    def _wake(self) -> None:
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    async def _run(self) -> None:
        try:
            while not self._is_retired and not self._is_over():
                self._sleep = self.loop.create_future()  # what happens from here on cuts it short
                for attempt in self.engine.poll(self._clock()):
                    self._begin(attempt)
                self._tell()
                if self._failure is not None or self._would_wait_in_vain():
                    break
                try:
                    await self._sleep_until(self._next_instant())
                except asyncio.CancelledError:
                    # Somebody cancels all tasks: `asyncio.run` at its end, a server at its second
                    # Ctrl-C. What is held gets its bounded chance all the same.
                    if not self._is_retired:
                        self.drain(self._shutdown_timeout)
        except Exception as error:  # our own bug; promise 1 says what follows, and in which order
            self._failure = error
        if not self._is_retired:
            self._end()
        for send in self._sends:
            send.cancel()
        while not self._has_let_go:  # a task that is cancelled before its first step never runs
            await undisturbed(self._task(self._let_go(), "end"))

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

    async def _sleep_until(self, instant: float | None) -> None:
        assert self._sleep is not None
        delay = None if instant is None else instant - self._clock()
        if self._sleep.done() or (delay is not None and delay <= 0):
            await asyncio.sleep(0)  # let the host have its turn
            return
        timer = None if delay is None else self.loop.call_later(delay, self._wake)
        try:
            await self._sleep
        finally:
            if timer is not None:
                timer.cancel()

    def _task(self, main: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        # An empty context: what is bound where the batcher happens to be started (a session, a trace)
        # does not belong to everything it sends.
        return self.loop.create_task(main, name=f"honeyhive_batcher.{name}", context=contextvars.Context())

    def _begin(self, attempt: Attempt) -> None:
        send = self._task(self._send(attempt), "send")
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
        if self.engine.phase is Phase.CLOSED or self._is_retired:
            return  # what was in flight is settled, or was taken over
        delivered = self._intake.ledger.delivered
        try:
            self.engine.complete(attempt, reply, self._clock())
        except Exception as error:  # the worker raises it, where it is dealt with
            self._failure = error
            self._failed_attempt = attempt
        if self._intake.ledger.delivered > delivered:
            self._intake.ledger.last_delivery_at = time.time()
        self._call_back()  # now, so that a flush that sees the fates returns after them
        self._wake()

    def _tell(self) -> None:
        """Tell the callbacks, who waits, and the log."""
        self._call_back()
        self._progress.release_all()
        self._room.release_one()
        self._intake.is_told = True  # first: what is lost from here on is told now, or wakes
        self._reporter.observe(self._intake.ledger, self._clock(), is_closing=self._deadline is not None)
        if self._reporter.owes_a_line(self._intake.ledger):
            self._intake.is_told = False  # there is an instant for it

    def _call_back(self) -> None:
        for settlement in self._intake.take_settlements():
            try:
                self._call_back_about(settlement)
            # Promise 1: a callback that raises is counted and hurts nothing. A cancellation that comes out
            # of a callback is its own, because nothing is awaited here.
            except (Exception, asyncio.CancelledError):
                self._intake.ledger.callback_errors += 1

    def _call_back_about(self, settlement: Settlement) -> None:
        hooks = self._hooks
        match settlement.fate:
            case Fate.DELIVERED if hooks.on_delivered is not None:
                hooks.on_delivered(settlement.event_ids)
            case Fate.DROPPED if hooks.on_dropped is not None and settlement.reason is not None:
                hooks.on_dropped(settlement.event_ids, settlement.reason)
            case Fate.UNCONFIRMED if hooks.on_unconfirmed is not None:
                hooks.on_unconfirmed(settlement.event_ids)
            case _:
                pass

    def _end(self) -> None:
        """Settle the rest, release who waits, and log how it ended."""
        before = self._before_drain or self._intake.statistics()
        self._deadline = self._clock()
        try:
            self.engine.abandon(DropReason.SHUTDOWN if self._failure is None else DropReason.INTERNAL)
            if self._failed_attempt is not None:  # its reply was looked at, and it may be nowhere since
                fragments = self._failed_attempt.batch.fragments
                rest = [fragment for fragment in fragments if not fragment.settled]
                self._intake.settle(rest, Fate.UNCONFIRMED)
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
        if self._sends:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(list(self._sends), timeout=_LAST_WORDS)
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._transport.close()
        except Exception:  # a transport that cannot even close is no reason to hurt the host
            self._reporter.failed(InternalError("the transport could not be closed"))
