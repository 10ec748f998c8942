"""The search for the poison in a refused batch: halves, one after another, until it stands alone.

One piece at a time and the left half first: a search then ends after `2 * log2(events) + 1` refusals
when one event is poison, and a server that refuses everything is known for it after as many.
"""

import math
from typing import final

from honeyhive_batcher.core.batching import halves
from honeyhive_batcher.core.model import Fragment

_WHEN_SYSTEMIC = 3
"""Refusals that are enough when the batch before was refused event by event."""


@final
class Trial:
    """The pieces of one batch that still have to be tried.

    Invariant: one piece is on its way or waiting, and the others are in here.
    """

    def __init__(self, events: int, *, is_systemic: bool) -> None:
        usual = 2 * math.ceil(math.log2(max(2, events))) + 1
        self._max_refusals = _WHEN_SYSTEMIC if is_systemic else usual
        self._pieces: list[tuple[Fragment, ...]] = []  # the next is the last
        self._refusals = 0
        self._has_accepted = False

    def refused(self, events: tuple[Fragment, ...]) -> bool:
        """Note that these were refused; return whether they are now known to be the poison alone."""
        self._refusals += 1
        if len(events) > 1:
            first, second = halves(events)
            self._pieces += [second, first]
            return False
        return True

    def split(self, events: tuple[Fragment, ...]) -> None:
        """Try the halves of a piece that was too large."""
        first, second = halves(events)
        self._pieces += [second, first]

    def accepted(self) -> None:
        """Note that the server took an event of this batch."""
        self._has_accepted = True

    @property
    def is_hopeless(self) -> bool:
        """Whether so much was refused, and nothing taken, that the fault is not in single events."""
        return self._refusals >= self._max_refusals and not self._has_accepted and bool(self._pieces)

    def next(self) -> tuple[Fragment, ...] | None:
        """Take the next piece out."""
        return self._pieces.pop() if self._pieces else None

    def take_all(self) -> list[tuple[Fragment, ...]]:
        """Take all pieces out."""
        pieces, self._pieces = self._pieces, []
        return pieces
