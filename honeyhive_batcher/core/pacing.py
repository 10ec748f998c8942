"""How many requests the endpoint may have at once, and not before when.

Concurrency grows by one for every success until the endpoint pushes back, then by one for every round;
a push-back halves it (additive increase, multiplicative decrease). After two failures in a row without
a success in between, only one request at a time is sent, after a back-off, until one succeeds: an
outage costs one request per back-off, whatever waits.
"""

from typing import final

from honeyhive_batcher.config import RetryLimits
from honeyhive_batcher.core.backoff import backoff
from honeyhive_batcher.core.model import Endpoint, Jitter

PROBE_INTERVAL = 60.0
"""Seconds between requests to an endpoint that answers as if a setting were wrong."""
_FIRST_LIMIT = 4.0
_FAILURES_TO_PROBE = 2
_NEVER = float("-inf")


@final
class Pacing:
    """What is known about the endpoint as a whole."""

    def __init__(self, max_in_flight: int, limits: RetryLimits, jitter: Jitter) -> None:
        self._max = float(max_in_flight)
        self._limits = limits
        self._jitter = jitter
        self._limit = min(_FIRST_LIMIT, self._max)
        self._threshold = self._max  # below it the limit grows by one for every success
        self._failures = 0  # in a row; requests that were under way together count as one
        self._failed_at = _NEVER
        self._reduced_at = _NEVER
        self._backoff_until = _NEVER  # ours: a flush may cut it short
        self._floor_at = _NEVER  # the server's Retry-After: nothing may
        self._held_until = _NEVER
        self.endpoint = Endpoint.UNKNOWN

    @property
    def limit(self) -> int:
        """Requests that may be under way at once."""
        if self.endpoint is Endpoint.HELD or self._failures >= _FAILURES_TO_PROBE:
            return 1
        return int(self._limit)

    @property
    def opens_at(self) -> float:
        """The instant before which no request may begin."""
        return max(self._backoff_until, self._floor_at, self._held_until)

    @property
    def floor_at(self) -> float:
        """The instant before which the server asked for no request."""
        return self._floor_at

    def succeeded(self, *, in_flight: int) -> None:
        """Note an answer that shows the endpoint at work, of one of `in_flight` requests."""
        self._failures = 0
        self._backoff_until = self._held_until = _NEVER
        self.endpoint = Endpoint.HEALTHY
        if in_flight >= self.limit:  # else the limit was not what held us back
            step = 1.0 if self._limit < self._threshold else 1.0 / self._limit
            self._limit = min(self._max, self._limit + step)

    def failed(self, *, started_at: float, now: float) -> None:
        """Note a failure, or a push-back, of a request that began at `started_at`."""
        if self.endpoint is not Endpoint.HELD:
            self.endpoint = Endpoint.BACKING_OFF
        if started_at >= self._reduced_at:
            self._limit = self._threshold = max(1.0, self._limit / 2)
            self._reduced_at = now
        if started_at >= self._failed_at:
            self._failures += 1
            self._failed_at = now
            if self._failures >= _FAILURES_TO_PROBE:
                wait = backoff(self._limits, self._failures - 1, self._jitter)
                self._backoff_until = max(self._backoff_until, now + wait)

    def misconfigured(self, *, now: float) -> float:
        """Note an answer that only a change of settings will cure; return when to ask again."""
        self.endpoint = Endpoint.HELD
        self._held_until = now + PROBE_INTERVAL
        return self._held_until

    def asked_to_wait(self, *, until: float) -> None:
        """Note a Retry-After, whatever it came with."""
        self._floor_at = max(self._floor_at, until)

    def hurry(self) -> None:
        """Cut our own back-off short, because a flush asks for it."""
        self._backoff_until = _NEVER
