"""The nouns of the pipeline, in the order in which they flow.

event → Fragment → Batch → Attempt → Request → Reply (Response | Failure) → Fate
"""

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias, final

from msgspec import Struct

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


# What holds content does not show it: error reporters show the variables of every frame in a traceback.


class Ids(Protocol):
    """Makes ids for events and sessions that have none."""

    @property
    def next(self) -> Callable[[], bytes]:
        """What returns the 36 characters of a UUID that nobody had before. From any thread."""


class GroupKey(Struct, frozen=True, eq=False, kw_only=True):
    """What a batch shares because it is sent once per body. Compared by identity: one per session."""

    session_id: str
    properties: bytes
    """`session_properties`, encoded; empty for events without a session."""

    def __repr__(self) -> str:
        return f"<GroupKey {self.session_id}: {len(self.properties)} bytes>"


SESSIONLESS = GroupKey(session_id="", properties=b"")
"""The one group of all events without a session."""


ID_LENGTH = 36
APPENDED = -ID_LENGTH - 2
"""The `Fragment.name` of an event whose id was made here: it is the last member."""


class Fragment(Struct, eq=False, gc=False):
    """One event, encoded. Positional on purpose: one is made per push.

    It is small on purpose, too. What waits fills the small-object arenas of CPython, and an arena is
    given back only when nothing at all in it is in use: with three more objects an event, a queue that
    had been full once would keep an eighth of its size for ever. So an id is not kept beside the bytes
    that hold it, nor a size beside what has it.

    Invariant: when it is accepted it gets its place; from then on only the ledger changes it, when it is
    settled.
    """

    data: bytes
    """The event's JSON; for a closing, the body of the session's update."""
    name: int | str
    """Where the text of the event's id begins in `data`, or the id itself where that is not so plain."""
    key: GroupKey = SESSIONLESS
    seq: int = 0
    """Position in the order of admission, from 1; 0 until it is accepted."""
    accepted_at: float = 0.0
    settled: bool = False

    repairs: ClassVar[int] = 0
    """Values that were replaced when it was encoded."""
    closing: ClassVar[bytes] = b""
    """Not empty for a session's closing: the final `session_properties`, encoded."""
    maybe_sent: ClassVar[bool] = False

    @property
    def event_id(self) -> str:
        """The event's id; for a closing, the session's."""
        name, data = self.name, self.data
        if isinstance(name, str):
            return name
        return data[name : data.index(b'"', name)].decode()  # a negative place counts from the end

    @property
    def size(self) -> int:
        """Bytes charged to the queue's bound until settled."""
        return len(self.data)

    def __repr__(self) -> str:
        return f"<Fragment {self.seq}: {len(self.data)} bytes{', settled' * self.settled}>"


def ids_of(fragments: Sequence[Fragment]) -> tuple[str, ...]:
    """Return the ids of fragments, in their order."""
    ours = [fragment.data[APPENDED:-2] for fragment in fragments if fragment.name == APPENDED]
    if ours and len(ours) == len(fragments):  # then much is to be saved
        return tuple(b"\n".join(ours).decode().split("\n"))
    return tuple([fragment.event_id for fragment in fragments])


def size_of(fragments: Iterable[Fragment]) -> int:
    """Return the bytes that fragments are charged for."""
    # Most are plain, and for those the property would take half as long again.
    return sum([len(each.data) if type(each) is Fragment else each.size for each in fragments])


@final
class Repaired(Fragment, eq=False, gc=False):
    """An event with values for which JSON has no word, until they were replaced."""

    repairs: int = 0  # type: ignore[misc]  # not in every fragment, see there


@final
class Closing(Fragment, eq=False, gc=False):
    """The end of a session."""

    closing: bytes = b""  # type: ignore[misc]  # not in every fragment, see there
    maybe_sent: bool = False  # type: ignore[misc]  # nor this
    """It may have arrived with the batch that it rode with, and was queued again."""

    @property
    def size(self) -> int:
        """Bytes charged to the queue's bound until settled."""
        return len(self.data) + len(self.closing)


@final
class Mended(Fragment, eq=False, gc=False):
    """An event whose bytes were changed after they were charged."""

    charged: int = 0

    @property
    def size(self) -> int:
        """Bytes charged to the queue's bound until settled."""
        return self.charged


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
