"""How many requests the endpoint may have at once, and not before when.

While it works, that is what `concurrency` has found. It is down when failures follow each other without a
success in between. Then one request at a time, the probe, goes after a back-off that doubles up to the
longest: an outage costs a handful of requests a minute, whatever waits. Nothing can be known then about a
batch, so its time for retries stands still. When a probe succeeds, the backlog leaves at the pace of
`catch_up`, and concurrency grows from what is left of it after the failures.
"""

from typing import final

from honeyhive_batcher.config import RetryLimits
from honeyhive_batcher.core import wire
from honeyhive_batcher.core.backoff import probe_wait
from honeyhive_batcher.core.catch_up import CatchUp
from honeyhive_batcher.core.concurrency import Concurrency
from honeyhive_batcher.core.model import Batch, Endpoint, Jitter

PROBE_INTERVAL = 60.0
"""Seconds between requests to an endpoint that answers as if a setting were wrong."""
_FAILURES_WHEN_SILENT = 2
"""Failures in a row that show an outage, when nothing has succeeded for `_SILENCE`."""
_FAILURES_AT_MOST = 5
"""Failures in a row that show an outage in any case. Fewer come to pass by chance: at a server that fails
every third request two in a row are common.
"""
_SILENCE = 1.0
_NEVER = float("-inf")


@final
class Pacing:
    """What is known about the endpoint as a whole."""

    def __init__(self, max_in_flight: int, limits: RetryLimits, jitter: Jitter) -> None:
        self._limits = limits
        self._jitter = jitter
        self._concurrency = Concurrency(max_in_flight)
        self._failures = 0  # in a row; requests that were under way together count as one
        self._failed_at = _NEVER
        self.succeeded_at = _NEVER
        """When the endpoint last was at work."""
        self._probes = 0  # that failed since it is down
        self._failing_since = _NEVER
        self._catch_up = CatchUp(jitter)
        self._backoff_until = _NEVER  # ours: a flush may cut it short
        self._floor_at = _NEVER  # the server's Retry-After: nothing may
        self._held_until = _NEVER
        self.endpoint = Endpoint.UNKNOWN

    @property
    def is_down(self) -> bool:
        """Whether nothing gets through, so that a failure says nothing about the batch that met it."""
        return self._probes > 0 or self.endpoint is Endpoint.HELD

    @property
    def limit(self) -> int:
        """Requests that may be under way at once."""
        return 1 if self.is_down else self._concurrency.limit

    @property
    def sound_since(self) -> float:
        """The instant from which the time for retries runs: the end of the last outage, of the catching up
        after it, and of what the server asked to wait for; the end of time while it is down.
        """
        return float("inf") if self.is_down else max(self._catch_up.ends_at, self._floor_at)

    def is_sound(self, now: float) -> bool:
        """Whether a push-back says something about the batch that met it: not when nothing gets through,
        nor while all clients catch up.
        """
        return not self.is_down and now >= self._catch_up.ends_at

    def opens_at(self, accepted: int) -> float:
        """Return the instant before which no request may begin; `accepted` counts all events so far."""
        catching_up = self._catch_up.opens_at(accepted)
        return max(catching_up, self._backoff_until, self._floor_at, self._held_until)

    def begun(self, batch: Batch, accepted: int) -> None:
        """Note that a batch goes; `accepted` counts all events so far."""
        self._catch_up.begun(len(batch.fragments), accepted)

    def succeeded(
        self, batch: Batch, started_at: float, now: float, *, in_flight: int, left: int, accepted: int
    ) -> None:
        """Note an answer that shows the endpoint at work: to `batch`, one of `in_flight` requests, sent at
        `started_at`, with so many events held, the batch's among them, of those accepted so far.
        """
        sent = len(batch.fragments)
        if self.is_down:
            self._catch_up.begin(
                now=now,
                length=now - self._failing_since,
                waiting=max(0, left - sent),
                sent=sent,
                accepted=accepted,
            )
        if left <= sent:
            self._catch_up.hurry()  # nothing else waits: what comes from now on has no backlog before it
        self._failures = self._probes = 0
        self.succeeded_at = now
        self._backoff_until = self._held_until = _NEVER
        self.endpoint = Endpoint.HEALTHY
        size = wire.body_size(batch)
        self._concurrency.replied(size=size, in_flight=in_flight, started_at=started_at, now=now)

    def failed(self, *, started_at: float, now: float) -> None:
        """Note a failure, or a push-back, of a request that began at `started_at`."""
        if self.endpoint is not Endpoint.HELD:
            self.endpoint = Endpoint.BACKING_OFF
        self._concurrency.pushed_back(started_at=started_at, now=now)
        if started_at >= self._failed_at:
            if not self.is_down and started_at > self._failed_at + 2 * self._limits.backoff_max:
                self._failures = 0  # the one before is too long ago to be of the same trouble
            if not self._failures and not self.is_down:
                self._failing_since = started_at
            self._failures += 1
            self._failed_at = now
            is_silent = self._failures >= _FAILURES_WHEN_SILENT and now >= self.succeeded_at + _SILENCE
            if is_silent or self._failures >= _FAILURES_AT_MOST or self.is_down:
                self._probes += 1
                wait = probe_wait(self._limits, self._probes, self._jitter)
                self._backoff_until = max(self._backoff_until, now + wait)

    def misconfigured(self, *, started_at: float, now: float) -> None:
        """Note an answer that only a change of settings will cure; ask again in a while."""
        if not self.is_down and not self._failures:
            self._failing_since = started_at
        self.endpoint = Endpoint.HELD
        self._held_until = now + PROBE_INTERVAL

    def asked_to_wait(self, *, until: float) -> None:
        """Note a Retry-After, whatever it came with."""
        self._floor_at = max(self._floor_at, until)

    def hurry(self) -> None:
        """Cut our own back-off short, and let the backlog go, because a flush asks for it."""
        self._backoff_until = _NEVER
        self._catch_up.hurry()
