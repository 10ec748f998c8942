"""Whether and when a batch is tried again."""

from typing import final

import msgspec

from honeyhive_batcher.config import RetryLimits
from honeyhive_batcher.core.backoff import backoff
from honeyhive_batcher.core.model import Attempt, Jitter


def next_attempt(
    limits: RetryLimits, attempt: Attempt, *, now: float, sound_since: float, counts: bool, jitter: Jitter
) -> Attempt | None:
    """Return the attempt that follows a failed one, or None when the limits are reached.

    `counts` tells whether the failed attempt counts against `max_retries`. One that may have arrived
    always does: that bounds the copies that a server can be left with. One that surely was not taken does
    not when the fault was not the batch's: the server was not reached, or is down.

    `max_elapsed` runs from the first attempt, or from `sound_since` if that is later. Time in which
    nothing could be delivered takes nothing from what can be delivered afterwards; the bounds of the
    queue are what bounds an outage.
    """
    if attempt.early and now < attempt.due_at and not (counts and attempt.maybe_sent):
        return msgspec.structs.replace(attempt, early=False)  # the flush's extra try cost nothing
    tries = attempt.tries + counts
    if tries > limits.max_retries:
        return None
    due_at = now + backoff(limits, attempt.number, jitter)
    assert attempt.first_at is not None
    if due_at > max(attempt.first_at, sound_since) + limits.max_elapsed:
        return None
    return msgspec.structs.replace(
        attempt, number=attempt.number + 1, tries=tries, due_at=due_at, early=False
    )


_ENOUGH_HOLDS = 2
"""Holds that show that it is the batch, and not a setting. One may be an answer that was on its way."""


def held_again(attempt: Attempt, now: float, succeeded_at: float) -> Attempt:
    """Return the attempt with the note that the server answered it as if a setting were wrong."""
    others_went = attempt.held_at is not None and succeeded_at > attempt.held_at
    return msgspec.structs.replace(attempt, held_at=now, holds=attempt.holds + others_went)


def is_alone_in_being_held(attempt: Attempt) -> bool:
    """Return whether the server takes others, again and again, and will not have this one: then it is
    refused, lest it hold up all others for ever. Its parts are, too: they take its holds along.
    """
    return attempt.holds >= _ENOUGH_HOLDS


@final
class Budget:
    """A token bucket: every retry takes a token, every success brings half of one, and time two a second.

    An outage then cannot multiply the traffic, while a server that fails every third request still
    has everything sent again at once.
    """

    PER_SUCCESS = 0.5
    PER_SECOND = 2.0

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self._tokens = capacity
        self._counted_at = 0.0

    def succeeded(self) -> None:
        """Note a success."""
        self._tokens = min(self._capacity, self._tokens + self.PER_SUCCESS)

    @property
    def opens_at(self) -> float:
        """The instant from which there is a token."""
        return self._counted_at + (1.0 - self._tokens) / self.PER_SECOND

    def take(self, now: float) -> None:
        """Take a token."""
        self._refill(now)
        self._tokens -= 1.0

    def _refill(self, now: float) -> None:
        elapsed = max(0.0, now - self._counted_at)
        self._tokens = min(self._capacity, self._tokens + elapsed * self.PER_SECOND)
        self._counted_at = now
