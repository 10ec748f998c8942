"""How many requests an endpoint that works may have at once: additive increase, multiplicative decrease.

It grows by one for every reply until the endpoint first protests, then by one for every round. There are
two protests. A push-back takes almost a third. Round trips that take longer than they did take a tenth, or
as much as a push-back when they are twice as long: what is too much for some servers they let wait, and say
nothing.

What is longer is known by an experiment. While there are few requests at once, what they take is what the
server takes for them. With more at once, a round that takes half as long again shrinks the limit; if that was
the cause, the next round is shorter, and if not, the limit ends among the few, where the new time becomes the
usual one. So a latency that rises by itself costs some rounds with fewer requests and no more, and one that
rises with the limit keeps it where a third of the time is spent waiting, mostly.
"""

from typing import final

_FEW = 4.0
"""Requests at once to begin with; no latency makes them fewer."""
_LEFT_BY_PUSH_BACK = 0.7
_LEFT_BY_SLOWNESS = 0.9
_CAUTION = 16
"""How many times more slowly the limit grows to where it was pushed back: until that shows again, everything
sent in a whole round trip is refused, and what is refused often enough is given up.
"""
_UNCHANGED = 1.25
"""Parts of the usual time that a round may take and the limit still grow."""
_LONGER = 1.5
"""Parts of the usual time from which the limit shrinks."""
_OUTLIER = 3.0
"""Parts of the usual time that a single reply counts for at most: a lost packet is no slow server."""
_SLACK = 0.01
"""Seconds added to every round trip: a few milliseconds more mean nothing at a fast server."""
_SMALLEST_ROUND = 32
"""Replies in a round, at least. The mean of fewer varies too much by chance."""
_FOLLOWING = 0.1
"""How much of the way the usual time follows a round that took less."""
_MAX_AGE = 30.0
"""Seconds for which the usual time is believed although no round has come near it."""
_NEVER = float("-inf")


@final
class Concurrency:
    """The limit for requests under way, by what the endpoint says and by how long it takes."""

    def __init__(self, max_in_flight: int) -> None:
        self._max = float(max_in_flight)
        self._limit = min(_FEW, self._max)
        self._threshold = self._max  # below it the limit grows by one for every reply
        self._pushed_back_at = _NEVER
        self._too_many = 0  # the limit at the last push-back
        self._usual: dict[int, float] = {}  # seconds, for each kind of body
        self._last = 1.0  # parts of the usual time that the last round took
        self._met_at = _NEVER  # when a round last took the usual time
        self._round_began_at = _NEVER
        self._replies = 0  # in this round
        self._sum = 0.0  # of what they took, in parts of the usual time

    @property
    def limit(self) -> int:
        """Requests that may be under way at once, at least one."""
        return int(self._limit)

    def replied(self, *, size: int, in_flight: int, started_at: float, now: float) -> None:
        """Note that a body of `size` bytes was dealt with, as one of `in_flight` requests."""
        if in_flight < self.limit:
            return  # the limit is not what held us back, and the time says nothing about it
        if self._last <= _UNCHANGED:
            step = 1.0 if self._limit < self._threshold else 1.0 / self._limit
            if self._too_many - 1.0 <= self._limit < self._too_many:
                step /= _CAUTION
            self._limit = min(self._max, self._limit + step)
        if started_at >= self._round_began_at:
            # By powers of two: how long large bodies take says nothing about small ones.
            took, kind = now - started_at + _SLACK, size.bit_length()
            self._sum += min(_OUTLIER, took / self._usual.setdefault(kind, took / self._last))
            self._replies += 1
            if self._replies >= max(_SMALLEST_ROUND, self._limit):
                self._end_round(now)

    def pushed_back(self, *, started_at: float, now: float) -> None:
        """Note a push-back of a request; those that were under way together count as one."""
        if started_at > self._pushed_back_at:
            self._too_many = self.limit
            self._limit = self._threshold = max(1.0, self._limit * _LEFT_BY_PUSH_BACK)
            self._pushed_back_at = now
            self._last = 1.0  # whatever it was, it was with more at once
            self._begin_round(now)

    def _end_round(self, now: float) -> None:
        self._last = self._sum / self._replies
        self._begin_round(now)
        if self._limit <= _FEW:
            self._follow(self._last)
            self._last = 1.0
        elif self._last < 1.0:
            self._follow(1.0 - _FOLLOWING * (1.0 - self._last))
        if self._last <= _UNCHANGED:
            self._met_at = now
        elif self._last >= _LONGER or now >= self._met_at + _MAX_AGE:
            left = max(_LEFT_BY_PUSH_BACK, min(_LEFT_BY_SLOWNESS, _LONGER / self._last))
            self._limit = self._threshold = max(_FEW, self._limit * left)

    def _begin_round(self, now: float) -> None:
        self._round_began_at = now
        self._replies = 0
        self._sum = 0.0

    def _follow(self, parts: float) -> None:
        for kind in self._usual:
            self._usual[kind] *= parts
