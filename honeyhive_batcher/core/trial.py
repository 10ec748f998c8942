"""The search for the poison in a refused batch: halves, one after another, until it stands alone.

One piece at a time and the left half first: a search then ends after `2 * log2(events) + 1` requests
when one event is poison, and a server that refuses everything is known for it after as many. The last
of these are of single events taken from all over the batch: whatever else is poison, a server that
takes events at all takes one of them, so that many bad events do not look like such a server.
"""

import math
from typing import final

from msgspec import Struct

from honeyhive_batcher.core.fragment import Fragment, Mended
from honeyhive_batcher.core.model import Attempt, Batch
from honeyhive_batcher.core.repair import mend

_WHEN_SYSTEMIC = 3
"""Refusals that are enough when the batch before was refused event by event."""


class Piece(Struct, frozen=True, eq=False, kw_only=True):
    """A part of a refused batch that has yet to be tried by itself."""

    fragments: tuple[Fragment, ...]
    maybe_sent: bool
    """An attempt that carried it may have arrived."""

    @classmethod
    def of(cls, attempt: Attempt) -> "Piece":
        """Return what an attempt carries."""
        return cls(fragments=attempt.batch.fragments, maybe_sent=attempt.maybe_sent)

    def by_arrival(self) -> tuple[list[Fragment], list[Fragment]]:
        """Return what may have arrived, and what surely did not."""
        if self.maybe_sent:
            return list(self.fragments), []
        maybe = [fragment for fragment in self.fragments if fragment.maybe_sent]
        return maybe, [fragment for fragment in self.fragments if not fragment.maybe_sent]

    def halves(self) -> "tuple[Piece, Piece]":
        """Return the two halves of more than one fragment."""
        middle = (len(self.fragments) + 1) // 2  # the larger half first
        return (
            Piece(fragments=self.fragments[:middle], maybe_sent=self.maybe_sent),
            Piece(fragments=self.fragments[middle:], maybe_sent=self.maybe_sent),
        )

    def attempt(self, whole: Attempt, trial: "Trial | None") -> Attempt:
        """Return the first attempt of this part of what `whole` carried."""
        batch = Batch(key=whole.batch.key, fragments=self.fragments)
        return Attempt(
            batch=batch, maybe_sent=self.maybe_sent, held_at=whole.held_at, holds=whole.holds, trial=trial
        )


@final
class Trial:
    """The pieces of one batch that still have to be tried.

    Invariant: one piece is on its way or waiting, and the others are in here.
    """

    def __init__(self, events: int, *, is_systemic: bool) -> None:
        depth = math.ceil(math.log2(max(2, events)))
        self._max_refusals = _WHEN_SYSTEMIC if is_systemic else 2 * depth + 1
        # When a lone poison is found, and its neighbour with it, there is no need to look elsewhere.
        self._enough_halves = 1 if is_systemic else depth + 2
        self._pieces: list[Piece] = []  # the next is the last
        self._refusals = 0
        self._has_accepted = False

    def refused(self, piece: Piece) -> bool:
        """Note that this was refused; return whether it is now known to be the poison alone."""
        self._refusals += 1
        if len(piece.fragments) > 1:
            self.split(piece)
            return False
        return True

    def split(self, piece: Piece) -> None:
        """Try the halves of a piece instead of all of it."""
        self._pieces += reversed(piece.halves())

    def accepted(self) -> None:
        """Note that the server took an event of this batch."""
        self._has_accepted = True

    @property
    def is_hopeless(self) -> bool:
        """Whether so much was refused, and nothing taken, that the fault is not in single events."""
        return self._refusals >= self._max_refusals and not self._has_accepted and bool(self._pieces)

    def next(self) -> Piece | None:
        """Take the next piece out."""
        if self._pieces and self._refusals >= self._enough_halves and not self._has_accepted:
            self._single_out()
        return self._pieces.pop() if self._pieces else None

    def _single_out(self) -> None:
        """Let the event in the middle of the largest piece be the next piece."""
        largest = max(range(len(self._pieces)), key=lambda place: len(self._pieces[place].fragments))
        piece = self._pieces.pop(largest)
        middle = len(piece.fragments) // 2
        parts = (
            piece.fragments[middle + 1 :],
            piece.fragments[:middle],
            piece.fragments[middle : middle + 1],
        )
        after, before, witness = (Piece(fragments=part, maybe_sent=piece.maybe_sent) for part in parts)
        self._pieces[largest:largest] = [each for each in (after, before) if each.fragments]
        self._pieces.append(witness)

    @property
    def fragments(self) -> list[Fragment]:
        """What is in the pieces that have yet to be tried."""
        return [fragment for piece in self._pieces for fragment in piece.fragments]

    def take_all(self) -> list[Piece]:
        """Take all pieces out."""
        pieces, self._pieces = self._pieces, []
        return pieces


def mended_batch(batch: Batch) -> Batch | None:
    """Return the batch with what is not JSON made so, or None if there is nothing to mend. See `mend`."""
    mended: dict[Fragment, Fragment] = {}
    for fragment in batch.events:
        data = mend(fragment.data)
        if data is not None and data != fragment.data:  # else it would be sent again for ever
            mended[fragment] = Mended(
                data,
                fragment.event_id,
                fragment.key,
                fragment.seq,
                fragment.accepted_at,
                charged=fragment.size,
            )
    if not mended:
        return None
    return Batch(key=batch.key, fragments=tuple(mended.get(each, each) for each in batch.fragments))
