"""What becomes of a batch that is too large, or refused: its parts are tried until the fault stands alone."""

from typing import final

import msgspec

from honeyhive_batcher.core import wire
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import Attempt, Batch, DropReason, Fate
from honeyhive_batcher.core.schedule import Schedule
from honeyhive_batcher.core.trial import Piece, Trial, mended_batch


@final
class Search:
    """Looks for what the server refuses in a batch, by what it says to the parts, and drops that alone.

    The trial of a batch goes with its attempts: what is kept here is only what one batch says of the next.
    """

    def __init__(self, intake: Intake, schedule: Schedule) -> None:
        self._intake = intake
        self._schedule = schedule
        self._is_systemic = False  # a batch was refused event by event, and nothing was taken since

    def too_large(self, attempt: Attempt, now: float) -> None:
        """Send the halves of a batch that was too large, and remember the size that was."""
        alone = self._without_closing(attempt)
        if len(alone.batch.events) < 2:
            if alone is not attempt:  # the closing may be what was too large
                self._schedule.add(alone)
            else:
                self.give_up(Piece.of(alone), DropReason.TOO_LARGE)
                self.advance(alone)
            return
        self._intake.limit_body(wire.body_size(attempt.batch) // 2, now)
        if attempt.trial is not None:
            attempt.trial.split(Piece.of(alone))
            self.advance(attempt)
        else:
            for half in Piece.of(alone).halves():
                self._schedule.add(half.attempt(alone, None))

    def refused(self, attempt: Attempt) -> None:
        """Find the poison in a refused batch and drop it alone; drop all when all is refused."""
        trial: Trial | None = attempt.trial
        if trial is None:
            mended = mended_batch(attempt.batch)
            if mended is not None:
                self._schedule.add(msgspec.structs.replace(attempt, batch=mended, plain=False))
                return
            trial = Trial(len(attempt.batch.events), is_systemic=self._is_systemic)
        alone = self._without_closing(attempt)
        if alone is not attempt and len(alone.batch.events) == 1:  # the closing may be the poison
            self._schedule.add(alone)
            return
        alone = msgspec.structs.replace(alone, trial=trial)
        if trial.refused(Piece.of(alone)):
            self.give_up(Piece.of(alone), DropReason.REJECTED)
        if trial.is_hopeless:
            self._is_systemic = True
            ledger = self._intake.ledger
            ledger.last_error = f"{ledger.last_error} for every event, so not for one of them"
            for piece in trial.take_all():
                self.give_up(piece, DropReason.REJECTED)
        self.advance(alone)

    def accepted(self, attempt: Attempt) -> None:
        """Note that the server took an event of this attempt."""
        self._is_systemic = False
        if attempt.trial is not None:
            attempt.trial.accepted()

    def advance(self, attempt: Attempt) -> None:
        """Send the next piece of a trial, now that the one before is done."""
        piece = attempt.trial.next() if attempt.trial is not None else None
        if piece is not None:
            self._schedule.add(piece.attempt(attempt, attempt.trial))

    def give_up(self, piece: Piece, reason: DropReason) -> None:
        """Drop what surely did not arrive; what may have is unconfirmed, also if it is refused now."""
        maybe, surely_not = piece.by_arrival()
        self._intake.settle(maybe, Fate.UNCONFIRMED)
        self._intake.settle(surely_not, Fate.DROPPED, reason)

    def _without_closing(self, attempt: Attempt) -> Attempt:
        """Queue a closing that rides along again, and return the attempt without it."""
        closing, events = attempt.batch.closing, attempt.batch.events
        if closing is None or not events:
            return attempt
        closing.maybe_sent |= attempt.maybe_sent
        self._intake.put_back(closing)
        alone = Batch(key=attempt.batch.key, fragments=events)
        return msgspec.structs.replace(attempt, batch=alone, plain=False)
