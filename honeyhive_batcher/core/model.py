"""The nouns of the pipeline, in the order in which they flow.

event → Fragment → Batch → Attempt → Request → Reply (Response | Failure) → Fate
"""

import enum
from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Struct

from honeyhive_batcher.core.fragment import Closing, Fragment, GroupKey

Clock: TypeAlias = Callable[[], float]
"""Returns the present instant, seconds on a monotonic clock."""
Jitter: TypeAlias = Callable[[], float]
"""Returns a number drawn evenly from [0, 1)."""


class Admission(enum.Enum):
    """The answer to a push. True only when the event was accepted; else the value names the reason."""

    ACCEPTED = "accepted"
    QUEUE_FULL = "queue_full"
    """The queue holds `max_queue_events` or `max_queue_bytes`, and nothing may be evicted."""
    TOO_LARGE = "too_large"
    """The encoded event is larger than `max_event_bytes`, or than a request or the queue can hold."""
    NOT_AN_EVENT = "not_an_event"
    """Neither a mapping nor a Struct that encodes to a JSON object."""
    FILTERED = "filtered"
    """`before_send` returned None, or raised: what could not be looked at is not sent."""
    SAMPLED = "sampled"
    """Not in the sample of `sample_rate`: left out on purpose, and no loss."""
    CLOSED = "closed"
    """The batcher is closing or closed."""

    __hash__ = object.__hash__  # that of enums is Python, and a push may interrupt it: see `Ledger.refuse`

    def __bool__(self) -> bool:
        return self is Admission.ACCEPTED


class Trigger(enum.StrEnum):
    """What made a batch be cut from the queue."""

    FULL = "full"
    """It had `max_batch_events` events or `max_batch_bytes` bytes."""
    INTERVAL = "interval"
    """Its oldest event had waited for `flush_interval`."""
    FLUSH = "flush"
    """A flush or the closing asked for it."""


class Batch(Struct, frozen=True, eq=False, kw_only=True):
    """Fragments of one group that travel in one request.

    Invariant: at least one fragment; at most one closing, and then it is the last.
    """

    key: GroupKey
    fragments: tuple[Fragment, ...]
    trigger: Trigger | None = None
    """Why it was cut; None for a part of another batch."""

    @property
    def events(self) -> tuple[Fragment, ...]:
        """The fragments that are events, without the closing."""
        return self.fragments[:-1] if self.fragments[-1].closing else self.fragments

    @property
    def closing(self) -> Closing | None:
        """The session's closing that rides along, if any."""
        last = self.fragments[-1]
        return last if isinstance(last, Closing) else None


class Response(Struct, frozen=True, kw_only=True):
    """An HTTP answer, or as much of it as arrived."""

    status: int
    body: bytes = b""
    retry_after: float | None = None
    """Seconds the server asked to wait."""
    compressed: bool = False
    """The request that it answers was."""

    def __repr__(self) -> str:
        return f"<Response {self.status}: {len(self.body)} bytes, retry_after={self.retry_after}>"


class Failure(Struct, frozen=True, kw_only=True):
    """No HTTP answer."""

    cause: str
    """A short description that holds no payload, header or key."""
    unsent: bool
    """True when surely nothing was sent: the connection never stood."""


Reply: TypeAlias = Response | Failure


class Attempt(Struct, frozen=True, eq=False, kw_only=True):
    """One sending of one batch; the next attempt is a new value."""

    batch: Batch
    number: int = 1
    """1 for the first; attempts that a flush brought forward do not count."""
    tries: int = 0
    """Earlier attempts that reached the server and count against `max_retries`."""
    first_at: float | None = None
    """When the first attempt of this batch began; None until then."""
    due_at: float = 0.0
    """When this attempt is to begin, by the back-off."""
    early: bool = False
    """Brought forward by a flush: a failure puts it back to `due_at` at no cost."""
    maybe_sent: bool = False
    """An earlier attempt ended with nobody knowing whether the server has the batch."""
    suspect: bool = False
    """A reply that accounted for this batch left all of it out."""
    held_at: float | None = None
    """When the server last answered it as if a setting were wrong."""
    holds: int = 0
    """How often it did so although it had taken something else since the time before."""
    plain: bool = False
    """Not to be compressed: the server would not have this batch so, or none at all."""
    trial: Any = None
    """The `Trial` that this attempt is a piece of, if it is one."""


class Fate(enum.Enum):
    """How an accepted event ends: exactly one of these, once."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    UNCONFIRMED = "unconfirmed"
    """Sent, and nobody knows whether the server has it."""


class DropReason(enum.StrEnum):
    """Why an accepted event was surely not delivered."""

    EVICTED = "evicted"
    """Made room for a newer one (`overflow="drop_oldest"`)."""
    REJECTED = "rejected"
    """The server refused this event, or left it out twice and said why."""
    TOO_LARGE = "too_large"
    """The server answered 413 to a body with this event alone."""
    RETRIES_EXHAUSTED = "retries_exhausted"
    """`max_retries` or `max_elapsed` was reached, and no attempt can have arrived."""
    SHUTDOWN = "shutdown"
    """Still held when `shutdown_timeout` ended."""
    INTERNAL = "internal"
    """The worker failed: a bug of this package, with its traceback in the log."""


class Settlement(Struct, frozen=True, kw_only=True, gc=False):
    """Events that met the same fate together, for the callbacks."""

    fate: Fate
    reason: DropReason | None
    event_ids: tuple[str, ...]


class Phase(enum.Enum):
    """The life of one run."""

    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class Endpoint(enum.StrEnum):
    """How the endpoint has answered lately."""

    UNKNOWN = "unknown"
    """No reply yet."""
    HEALTHY = "healthy"
    BACKING_OFF = "backing_off"
    """It failed or pushed back; sending goes on, slowly."""
    HELD = "held"
    """It answered 401 to 405, 407, 410 or a redirect: somebody has to change a setting. It is asked again
    once a minute.
    """
