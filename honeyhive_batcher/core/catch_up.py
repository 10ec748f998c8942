"""How fast a backlog may leave when an outage is over: every client of that server has one.

What the outage piled up is spread over about twice its length. Together the clients then send half as
much again as they always do, however many they are, and not all of it at once. What is accepted meanwhile
comes on top: a queue that is kept full from outside is not held back at all.
"""

from typing import final

from honeyhive_batcher.core.model import Jitter

_STRETCH = 2.4
"""Lengths of the outage over which its backlog is spread."""
_MAX_SPREAD = 160.0
"""Longest time to spread a backlog over, in seconds."""
_SPREAD_JITTER = 0.05
"""Part of that time that is left to chance."""
_MAX_GAP = 2.5
"""Seconds between two batches of a backlog, at most: a small one is not worth spreading."""


@final
class CatchUp:
    """The pace of one backlog after another."""

    def __init__(self, jitter: Jitter) -> None:
        self._jitter = jitter
        self._began_at = float("-inf")
        self.ends_at = float("-inf")
        """The instant at which the last backlog should have left."""
        self._gap = 0.0  # seconds for each event
        self._begun = 0.0  # events sent since, whether they arrived or not
        self._accepted = 0
        self._enough = 0.0  # `_begun`, less what was accepted since, when nothing waits any more

    def begin(self, *, now: float, length: float, waiting: int, sent: int, accepted: int) -> None:
        """Spread what is `waiting` after an outage of this length, of which a batch of `sent` events has
        found the end; `accepted` counts all events so far.
        """
        left = self.ends_at - now  # of the outage before this one
        spread = min(_STRETCH * length, _MAX_SPREAD, _MAX_GAP * waiting / sent)
        spread *= 1.0 - _SPREAD_JITTER * self._jitter()  # so that not all clients end at once
        self._began_at = now
        self.ends_at = now + max(left, spread)
        self._gap = (self.ends_at - now) / max(1, waiting)
        self._begun = 2.0 * self._jitter() * sent  # so that not all clients go on at once
        self._enough = self._begun + waiting
        self._accepted = accepted

    def begun(self, events: int, accepted: int) -> None:
        """Note that a request with so many events goes; `accepted` counts all events so far."""
        self._begun += events
        if self._begun - (accepted - self._accepted) >= self._enough:
            self.hurry()  # what comes from now on has no backlog before it

    def opens_at(self, accepted: int) -> float:
        """Return the instant before which no other request may begin; `accepted` counts all events so far."""
        ahead = self._begun - (accepted - self._accepted)
        return min(self._began_at + self._gap * ahead, self.ends_at)

    def hurry(self) -> None:
        """Let the rest of the backlog go."""
        self._gap = 0.0
        self.ends_at = self._began_at
