"""One encoded event, and the group that it belongs to."""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Protocol, final

from msgspec import Struct

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
