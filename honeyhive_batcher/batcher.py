"""The public object: what producers call, and what a program starts and closes."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Self, Unpack, final

from honeyhive_batcher.config import Config
from honeyhive_batcher.core.encoding import EventEncoder, Refusal
from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment
from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Admission
from honeyhive_batcher.core.repair import repair
from honeyhive_batcher.core.room import ROOM, RoomyEncoder
from honeyhive_batcher.embedded import Embedded
from honeyhive_batcher.errors import ClosedError, EncodeError
from honeyhive_batcher.events import SessionProperties
from honeyhive_batcher.gate import Gate
from honeyhive_batcher.hooks import Hooks
from honeyhive_batcher.offer import Offer, checked
from honeyhive_batcher.producer import note_start
from honeyhive_batcher.runtime.flush_result import FlushResult
from honeyhive_batcher.runtime.fork import at_fork, notice_fork
from honeyhive_batcher.runtime.invocation import Invocation
from honeyhive_batcher.runtime.lifecycle import Lifecycle
from honeyhive_batcher.runtime.reporter import say
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.secret import seal
from honeyhive_batcher.session import Session, Sessions, bound_session, current
from honeyhive_batcher.settings import Options
from honeyhive_batcher.unfinished import tell_unfinished

_PUTS_PER_TURN = 100
# Looked up here: in CPython 3.11 that is a call, see `push`.
_STRANGE = Admission.NOT_AN_EVENT
_CLOSED = Admission.CLOSED
_FULL = Admission.QUEUE_FULL
_ACCEPTED = Admission.ACCEPTED


@final
class Batcher(Embedded):
    """Takes model events from any thread and ships them to HoneyHive in batches, in the background.

    Use it as `async with Batcher(...) as batcher:`, or `await start()` and `await aclose()`. Events pushed
    before the first start are held, within the bounds. A closed batcher may be started again, also in
    another event loop; its numbers go on.

    Settings are keyword arguments, checked when they are given (`honeyhive_batcher.config` explains each);
    `from_env` reads the `HH_*` variables. Callbacks: `before_send(event)` is called inside `push` and
    returns the event to send, or None to keep it; `before_session(properties)` does the same with what is
    said about a session; `cost(event)` says in a thread what an event has cost that does not say so itself;
    `on_delivered(event_ids)`, `on_dropped(event_ids, reason)` and `on_unconfirmed(event_ids)` are called on
    the event loop. One that raises is counted (`Statistics.callback_errors`) and hurts nothing.

    Raises:
        ConfigError: A setting is unknown, missing or wrong.
        ImportError: `cost` needs a package that is not installed.
    """

    def __init__(self, *, _seams: Seams = Seams(), **options: Unpack[Options]) -> None:  # noqa: B008 - frozen
        seal(options)
        settings: dict[str, Any] = {**options}
        hooks = Hooks.taken_from(settings)
        self._set_up(Config.of(**settings), hooks, _seams)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **settings: Any) -> Self:
        """Make a batcher from the environment (`os.environ`); arguments win over variables.

        A variable that is not valid is warned about and its default used; but a key or address raises.

        Raises:
            ConfigError: There is no usable API key, or an argument is wrong.
        """
        seal(settings)
        hooks, seams = Hooks.taken_from(settings), settings.pop("_seams", Seams())
        batcher = cls.__new__(cls)
        batcher._set_up(Config.from_env(environ, **settings), hooks, seams)  # noqa: SLF001 - its own
        return batcher

    def _set_up(self, config: Config, hooks: Hooks, seams: Seams) -> None:
        self.config = config
        """The settings in force."""
        self._hooks, self._seams = hooks, seams
        self._clock = seams.clock
        defaults = config.defaults
        room = ROOM if hooks.cost is not None else 0
        encoder = EventEncoder(
            max_event_bytes=config.batch.max_event_bytes - room,
            defaults={name: getattr(defaults, name) for name in ("project", "source", "event_name")},
            ids=seams.ids,
            repair=repair,
        )
        self._encoder = RoomyEncoder(encoder) if room else encoder
        self._puts = 0
        self._begin_anew()
        self._sessions = Sessions(
            self._intake,
            defaults,
            max_bytes=config.batch.max_batch_bytes // 2,
            ids=seams.ids,
            clock=seams.clock,
            before_session=hooks.before_session,
            captures_content=config.recording.capture_content,
        )
        gate = Gate(config.recording, hooks.before_send, self._sessions, seams.chance)
        self._gate = None if gate.is_wide_open else gate  # not to be asked in vain by every push
        at_fork(self)

    def _begin_anew(self) -> None:
        self._lifecycle = Lifecycle(self.config, self._hooks, self._seams)
        self._intake = self._lifecycle.intake
        self._has_warned_closed = False

    def after_fork(self) -> None:
        """Begin anew in a forked child: what the parent holds, the parent sends. Called by itself."""
        # With new parts: the lock of the old may be held for ever, and what was interrupted goes on with it.
        self._begin_anew()
        self._sessions.intake = self._intake

    # Producing.

    def push(self, event: object, *, session: Session | None = None) -> Admission:
        """Take an event for delivery, or say why not. From any thread; never waits and never raises.

        `event` is a `ModelEvent`, a mapping of the same shape, or any Struct. It is encoded here: what the
        caller does to it afterwards changes nothing, and it is not changed itself. Afterwards the event is
        counted, as accepted or as refused. Without `session` it belongs to the session bound here, unless
        it carries a `session_id` of its own.
        """
        try:
            if self._gate is not None and isinstance(event := self._gate.passed(event, session), Refusal):
                return self._refuse(event)
            fragment = self._encoder.encode(event) if self._intake.is_open else _CLOSED
            if not isinstance(fragment, Fragment):
                return self._refuse(fragment)
            if session is None and not current.get():
                if type(fragment) is Fragment and self._intake.take(fragment):
                    return _ACCEPTED
                return self._intake.admit(fragment, SESSIONLESS, self._clock())
            return self._admit(fragment, session or bound_session(self._sessions, event), wait=False)
        except (Exception, asyncio.CancelledError):  # promise 1, whatever a strange event's methods do
            try:
                return self._intake.refuse(_STRANGE)
            except RecursionError:  # not one more call fits on the stack: count it without
                self._intake.ledger.refused[_STRANGE] += 1
                self._intake.ledger.losses += 1
                return _STRANGE

    async def put(
        self, event: object, *, session: Session | None = None, timeout: float | None = None
    ) -> Admission:
        """Do the same as `push`, but wait for room, at most `timeout` seconds. In any event loop.

        Returns `Admission.ACCEPTED`, `Admission.FILTERED` when `before_send` kept the event, or
        `Admission.SAMPLED` when it is not in the sample. Cancelled while it waits, it has not accepted it.

        Raises:
            EncodeError: This can never be an event: no mapping or Struct, or too large.
            ClosedError: The batcher is closing or closed.
            TimeoutError: There was no room in time.
        """
        self._puts += 1
        if self._puts % _PUTS_PER_TURN == 0 and not self._lifecycle.callers.has_turned():
            # A loop of puts must not keep the event loop to itself until the queue is full. Before the event
            # is taken, so that a cancellation still means that it was not.
            await asyncio.sleep(0)
        offer = self._offer(event, session)
        return await self._wait_for_room(offer, timeout) if isinstance(offer, Offer) else offer

    def session(
        self, properties: SessionProperties | Mapping[str, Any] | None = None, /, **more: Any
    ) -> Session:
        """Return a session to enter with `with`, or to pass as `session=`. Never raises.

        Properties are those of `SessionProperties`, and others: the route is open. `session_id` is made
        when it is not given; `session_name` and `source` come from the settings when they are not. What
        is no mapping is left out and counted in `Statistics.repaired`.
        """
        return self._sessions.make(properties, more)

    # Watching.

    async def flush(self, timeout: float | None = None) -> FlushResult:
        """Have everything pushed before this call settled, and say what became of it.

        Interrupts waits for more events and back-offs, but not a server's Retry-After; without a timeout it
        waits as long as an outage lasts. Returns after `timeout` seconds at the latest, and earlier when
        waiting on would be in vain: the batcher does not run, or the key or address is refused.
        """
        notice_fork(self._intake.ledger.held_events)
        return await self._lifecycle.callers.flush(timeout)

    def statistics(self) -> Statistics:
        """Return a snapshot of the ledger, in which the numbers add up. From any thread."""
        return self._intake.statistics()

    def __repr__(self) -> str:
        if not hasattr(self, "_lifecycle"):
            return "<Batcher not made>"  # its settings were refused, and somebody shows the traceback
        now = self.statistics()
        return (
            f"<Batcher {self._lifecycle.state}: {now.accepted} accepted, {now.delivered} delivered, "
            f"{now.held} held, {now.in_flight} requests in flight>"
        )

    # Life cycle.

    async def start(self) -> Self:
        """Begin to send, in the running event loop. Does nothing when it runs here already.

        Raises:
            BatcherError: It runs in another event loop.
        """
        notice_fork(self._intake.ledger.held_events)
        await self._lifecycle.start()
        self._has_warned_closed = False
        note_start(self)
        return self

    async def aclose(self, timeout: float | None = None) -> None:
        """Take nothing more, deliver what is held, and give the rest up after `timeout` seconds.

        `timeout` is `shutdown_timeout` when it is not given. A cancellation does not cut this short: it
        is raised when closing is done. Afterwards everything is settled, no task and no connection is
        left, and what was lost stands in one log line and in `statistics()`.
        """
        notice_fork(self._intake.ledger.held_events)
        tell_unfinished(self)
        await self._lifecycle.aclose(timeout)

    def invocation(self, *, timeout: float | None = None) -> Invocation:
        """Return what `async with` runs one call of a serverless function in. Starts the batcher in this
        loop if it does not run, and flushes at the end for `timeout` seconds at most (`shutdown_timeout` if
        not given). Then no task or connection is left, and what could not be sent waits for the next one.
        """
        notice_fork(self._intake.ledger.held_events)
        note_start(self)
        default = self.config.shutdown.shutdown_timeout
        return Invocation(self._lifecycle, default if timeout is None else timeout)

    def __del__(self) -> None:
        lifecycle: Lifecycle | None = getattr(self, "_lifecycle", None)
        if lifecycle is not None:
            lifecycle.forget(self)

    # What the verbs are made of.

    def _offer(self, event: Any, session: Session | None) -> Admission | Offer:
        """Do what `put` does without waiting; raises what it raises. What has to wait is not counted yet."""
        try:
            if self._gate is not None and isinstance(event := self._gate.passed(event, session), Refusal):
                return checked(self._refuse(event), event)
            fragment = self._encoder.encode(event) if self._intake.is_open else _CLOSED
            if not isinstance(fragment, Fragment):
                return checked(self._refuse(fragment), fragment)
            if session is None and current.get():
                session = bound_session(self._sessions, event)
            if not self._lifecycle.callers.room.is_empty:  # nobody overtakes those who wait already
                return Offer(fragment, session)
            if session is not None:
                admission = self._admit(fragment, session, wait=True)
            elif type(fragment) is Fragment and self._intake.take(fragment):
                return _ACCEPTED
            else:
                admission = self._intake.admit(fragment, SESSIONLESS, self._clock(), wait=True)
        except (EncodeError, ClosedError):
            raise
        except (Exception, asyncio.CancelledError) as error:  # as in `push`: it is none of the caller's
            self._intake.refuse(_STRANGE)
            raise EncodeError(f"the event raised {type(error).__name__} when it was read") from None
        if admission is _FULL:
            return Offer(fragment, session)
        return checked(admission)

    async def _wait_for_room(self, offer: Offer, timeout: float | None) -> Admission:
        try:
            offer.admission = await self._lifecycle.callers.wait_for_room(
                lambda: self._admit(offer.fragment, offer.session, wait=True), timeout
            )
        except (TimeoutError, asyncio.CancelledError):
            self._intake.refuse(_FULL)
            raise
        return checked(offer.admission)

    def _refuse(self, answer: Refusal | Admission) -> Admission:
        admission = answer.admission if isinstance(answer, Refusal) else answer
        if admission is Admission.CLOSED and not self._has_warned_closed:
            self._has_warned_closed = True
            text = "an event was pushed after the batcher was closed: refused and counted"
            say(logging.WARNING, text, kind="pushed_after_close", reason=admission.value)
        return self._intake.refuse(admission)

    def _admit(self, fragment: Fragment, session: Session | None, *, wait: bool) -> Admission:
        key = SESSIONLESS if session is None else session.key
        admission = self._intake.admit(fragment, key, self._clock(), wait=wait)
        if session is not None and admission:
            session.taken_by = self._intake
        return admission
