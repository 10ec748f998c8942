"""Composes the policies into one synchronous machine: what to send now, and what a reply means.

Invariants, each tested by its name:

1. Conservation: `offered = accepted + refused` and `accepted = delivered + dropped + unconfirmed + held`,
   after every call, per event and not only by count.
2. Bound: held events and bytes (queued, in flight, backing off) never exceed the limits.
3. Batch: 1 to max events, body within its limit, one group, first in first out within the group.
4. One fate: a second settlement is an `InternalError`.
5. Wake: at `wake_at()` there is work; if it is None, only a call or a reply makes work.
6. Age: with a free slot and no back-off, nothing waits longer than `flush_interval`.
7. Retry: attempts and elapsed time are bounded; Retry-After is a floor; same bytes, same ids.
8. Phase: OPEN → DRAINING → CLOSED, never back; a new run is a new engine over the same intake.
9. Host: nothing in here waits, logs or raises for anything a server says.

An accepted event is in exactly one place:

    queued ──cut──► in flight ──reply──► settled
    (intake)          ▲   │
                      │   ├─► waiting, ready (schedule)
                      └───┴─► the later pieces of a refused batch (trial)
"""

from collections.abc import Iterable
from typing import assert_never, final

import msgspec

from honeyhive_batcher.config import RetryLimits
from honeyhive_batcher.core import verdict
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import (
    Attempt,
    Batch,
    DropReason,
    Endpoint,
    Fate,
    Jitter,
    Phase,
    Reply,
    Response,
)
from honeyhive_batcher.core.pacing import Pacing
from honeyhive_batcher.core.retry import Budget, held_again, is_alone_in_being_held, next_attempt
from honeyhive_batcher.core.schedule import NOW, Schedule
from honeyhive_batcher.core.search import Search
from honeyhive_batcher.core.trial import Piece
from honeyhive_batcher.errors import InternalError


@final
class Engine:
    """One run. All its methods are called by one thread, the one that runs the loop."""

    def __init__(
        self,
        intake: Intake,
        *,
        max_in_flight: int,
        retry: RetryLimits,
        jitter: Jitter,
        left: Iterable[Attempt] = (),
    ) -> None:
        self.phase = Phase.OPEN
        self._intake = intake
        self._ledger = intake.ledger
        self._retry = retry
        self._jitter = jitter
        self._pacing = Pacing(max_in_flight, retry, jitter)
        self._schedule = Schedule(Budget(capacity=10.0 + max_in_flight))
        self._search = Search(intake, self._schedule)
        self.in_flight: dict[Attempt, float] = {}
        """The attempts that were begun and have no reply, and when each began."""
        self._in_doubt: list[Attempt] = []  # whose replies were being taken when something struck
        self._flushes = intake.flushes
        for attempt in left:
            self._schedule.wait(attempt)

    # What to do, and when.

    def poll(self, now: float) -> list[Attempt]:
        """Return the attempts to begin now; each has to come back through `complete`."""
        if self._intake.flushes > self._flushes:
            self._flushes = self._intake.flushes
            self._pacing.hurry()  # the back-offs, once for every flush; not the server's Retry-After
            if self._pacing.endpoint is not Endpoint.HELD:
                self._schedule.hurry()
        begun: list[Attempt] = []
        while len(self.in_flight) < self._pacing.limit and self._pacing.opens_at(self._ledger.seq) <= now:
            attempt = self._schedule.next(now, self._intake.cut, is_down=self._pacing.is_down)
            if attempt is None:
                break
            self._ledger.begun(attempt)
            if self._ledger.is_plain and not attempt.plain:
                attempt = msgspec.structs.replace(attempt, plain=True)
            if attempt.first_at is None:
                attempt = msgspec.structs.replace(attempt, first_at=now)
            self.in_flight[attempt] = now
            self._pacing.begun(attempt.batch, self._ledger.seq)
            begun.append(attempt)
        self._ledger.in_flight = len(self.in_flight)
        return begun

    def wake_at(self) -> float | None:
        """Return when `poll` has something to do; None if only a call or a reply gives it something."""
        if len(self.in_flight) >= self._pacing.limit or self.phase is Phase.CLOSED:
            return None
        instants = [at for at in (self._schedule.due_at(), self._intake.ripe_at()) if at is not None]
        return max(min(instants), self._pacing.opens_at(self._ledger.seq)) if instants else None

    @property
    def is_stalled(self) -> bool:
        """Whether nothing will be settled until somebody changes a setting."""
        return self._pacing.endpoint is Endpoint.HELD and not self.in_flight

    # What a reply means.

    def complete(self, attempt: Attempt, reply: Reply, now: float) -> None:
        """Take the reply to an attempt.

        Raises:
            InternalError: The attempt is not in flight.
        """
        if attempt not in self.in_flight:
            raise InternalError("a reply came for an attempt that is not in flight")
        self._in_doubt.append(attempt)  # its events are nowhere for a while: see `recover`
        in_flight, started_at = len(self.in_flight), self.in_flight.pop(attempt)
        self._ledger.in_flight = in_flight - 1
        said = verdict.judge(attempt.batch, reply)
        if isinstance(said, verdict.Misconfigured):
            attempt = held_again(attempt, now, self._pacing.succeeded_at)
            said = verdict.Refused(cause=said.cause) if is_alone_in_being_held(attempt) else said
        if isinstance(reply, Response) and reply.retry_after and not isinstance(said, verdict.Delivered):
            self._pacing.asked_to_wait(until=now + reply.retry_after)
        match said:
            case verdict.NotNow() | verdict.Ambiguous():
                self._pacing.failed(started_at=started_at, now=now)
            case verdict.Misconfigured():
                self._pacing.misconfigured(started_at=started_at, now=now)
            case _:
                is_hurried = self.phase is not Phase.OPEN or self._ledger.is_flushing
                left, accepted = 0 if is_hurried else self._ledger.held_events, self._ledger.seq
                self._pacing.succeeded(
                    attempt.batch, started_at, now, in_flight=in_flight, left=left, accepted=accepted
                )
                self._schedule.budget.succeeded()
        self._ledger.endpoint = self._pacing.endpoint
        if not isinstance(said, verdict.Delivered):
            self._ledger.last_error = said.cause
        if attempt.plain and isinstance(said, verdict.Delivered | verdict.Partly):
            self._ledger.is_plain = True  # it was the compression that the server would not have
        match said:
            case verdict.Delivered():
                self._settle(attempt, Fate.DELIVERED)
            case verdict.Partly():
                self._complete_partly(attempt, said, now)
            case verdict.NotNow():
                self._again(attempt, now, counts=not said.unsent and self._pacing.is_sound(now))
            case verdict.Ambiguous() if self._retry.on_ambiguous == "drop":
                self._settle(attempt, Fate.UNCONFIRMED)
            case verdict.Ambiguous():
                self._again(msgspec.structs.replace(attempt, maybe_sent=True), now, counts=True)
            case verdict.TooLarge():
                self._search.too_large(attempt, now)
            case verdict.Refused():
                self._search.refused(attempt)
            case verdict.NotCompressed():
                self._schedule.add(msgspec.structs.replace(attempt, plain=True))
            case verdict.Misconfigured():
                self._again(attempt, now, counts=False)
            case _:
                assert_never(said)
        self._in_doubt.pop()

    def _complete_partly(self, attempt: Attempt, said: verdict.Partly, now: float) -> None:
        """Settle what is named and send the rest again, alone; drop it when it is accounted for once
        more and nothing else was created.
        """
        rest = said.rest
        closing = attempt.batch.closing
        delivered = said.delivered
        has_created = bool(delivered) or not said.attributed
        if closing is not None and has_created:
            delivered = (*delivered, closing)  # its properties came with what was created
        elif closing is not None:
            rest = (*rest, closing)
        self._intake.settle(delivered, Fate.DELIVERED)
        if has_created:
            self._search.accepted(attempt)
        remainder = msgspec.structs.replace(
            attempt, batch=Batch(key=attempt.batch.key, fragments=rest), suspect=said.accounted
        )
        if not said.attributed:
            self._settle(remainder, Fate.UNCONFIRMED)  # sent again, some would surely be there twice
        elif said.accounted and attempt.suspect and not delivered:
            self._settle(remainder, Fate.DROPPED, DropReason.REJECTED)
        else:
            self._again(remainder, now, counts=True, left_out=said.accounted)

    def _again(self, attempt: Attempt, now: float, *, counts: bool, left_out: bool = False) -> None:
        """Let an attempt be followed by another, or give its batch up."""
        since = self._pacing.sound_since
        following = next_attempt(
            self._retry, attempt, now=now, sound_since=since, counts=counts, jitter=self._jitter
        )
        if following is not None:
            self._schedule.wait(following)
        else:
            reason = DropReason.REJECTED if left_out else DropReason.RETRIES_EXHAUSTED
            self._settle(attempt, Fate.DROPPED, reason)

    def _settle(self, attempt: Attempt, fate: Fate, reason: DropReason | None = None) -> None:
        if reason is not None:
            self._search.give_up(Piece.of(attempt), reason)
        else:
            self._intake.settle(attempt.batch.fragments, fate)
        if fate is Fate.DELIVERED:
            self._search.accepted(attempt)
        self._search.advance(attempt)

    # The end of a run.

    def drain(self) -> None:
        """Take nothing more, and send what is held without waiting for more to share its requests."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.DRAINING
            self._intake.close()

    def abandon(self, reason: DropReason = DropReason.SHUTDOWN) -> None:
        """End the run and settle everything held: what was sent is unconfirmed, the rest is dropped."""
        self._intake.close()
        self.phase = Phase.CLOSED
        self.recover()
        for attempt in self.in_flight:
            self._intake.settle(attempt.batch.fragments, Fate.UNCONFIRMED)
        waiting = self._schedule.take_all()
        trials = [attempt.trial for attempt in (*self.in_flight, *waiting) if attempt.trial is not None]
        for piece in (*map(Piece.of, waiting), *(each for trial in trials for each in trial.take_all())):
            self._search.give_up(piece, reason)
        while (batch := self._intake.cut(NOW)) is not None:
            self._search.give_up(Piece(fragments=batch.fragments, maybe_sent=False), reason)
        self.in_flight.clear()
        self._ledger.in_flight = 0

    def hand_over(self, now: float) -> list[Attempt]:
        """End the run and return what is left for the next one, which has its time for retries before it."""
        self.recover()
        self.phase = Phase.CLOSED
        lost = [msgspec.structs.replace(attempt, maybe_sent=True) for attempt in self.in_flight]
        self.in_flight.clear()
        left = (*lost, *self._schedule.take_all())
        return [msgspec.structs.replace(attempt, first_at=now) for attempt in left]

    def recover(self) -> None:
        """Put in order what a bug, or a Ctrl-C, left half done: what is nowhere then is unconfirmed."""
        in_doubt, self._in_doubt = self._in_doubt, []
        for attempt in in_doubt:
            self._search.advance(attempt)
        attempts = (*self.in_flight, *self._schedule.all)
        known = {fragment for attempt in attempts for fragment in attempt.batch.fragments}
        for attempt in attempts:
            known.update(attempt.trial.fragments if attempt.trial is not None else ())
        self._intake.reconcile(known, [each for attempt in in_doubt for each in attempt.batch.fragments])
