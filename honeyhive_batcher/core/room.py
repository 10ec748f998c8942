"""Room for a price inside of an event's bytes, which is filled in after the event was taken.

White space, which means nothing in JSON, is put before the end of the event when it is encoded, so that it
counts in every bound. A price takes its place later, and not one byte changes its length or its place.
"""

from typing import Protocol, final

from honeyhive_batcher.core.encoding import Refusal
from honeyhive_batcher.core.fragment import APPENDED, ID_LENGTH, Fragment

_FREE = b" \t" * 16
"""What nobody else writes: encoders write no white space at all. Python writes floats in 24 characters at
most, and a name, a colon and a comma take eight."""
ROOM = len(_FREE)
"""Bytes that every event is longer by."""
_ID_MEMBER = len(b',"event_id":""}') + ID_LENGTH


class Encodes(Protocol):
    """What an `EventEncoder` does."""

    def encode(self, event: object) -> Fragment | Refusal:
        """Return the bytes of `event`, or why it cannot be one."""
        ...


@final
class RoomyEncoder:
    """An encoder that leaves room for a price in every event."""

    def __init__(self, encoder: Encodes) -> None:
        self._encoder = encoder

    def encode(self, event: object) -> Fragment | Refusal:
        """Return the bytes of `event`, with room, or why it cannot be one."""
        fragment = self._encoder.encode(event)
        if isinstance(fragment, Fragment):
            data = fragment.data
            end = _end(fragment)
            fragment.data = b"".join((data[:end], _FREE, data[end:]))
        return fragment


def has_room(fragment: Fragment) -> bool:
    """Return whether there is room in a fragment that nothing has taken."""
    end = len(fragment.data) + _end(fragment)
    return not fragment.closing and fragment.data[end - ROOM : end] == _FREE


def filled(fragment: Fragment, cost: float | None) -> bytes:
    """Return the bytes of a fragment that has room, with this cost; None takes the room for good."""
    member = b"" if cost is None else b',"cost":' + repr(cost).encode()
    end = len(fragment.data) + _end(fragment)
    return b"".join((fragment.data[: end - ROOM], member.ljust(ROOM), fragment.data[end:]))


def _end(fragment: Fragment) -> int:
    """Return where the room ends, counted from the end: before the id that was appended, or the brace."""
    return -_ID_MEMBER if fragment.name == APPENDED else -1
