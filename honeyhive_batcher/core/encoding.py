"""An event becomes JSON bytes, once, whatever it holds.

The usual event takes one msgspec encode into a buffer that cannot grow (`to_json` says why). Only when that
fails, for a value JSON has no word for, are the failing branches walked (`repair`).
"""

from collections.abc import Callable, Mapping
from typing import Any, final

import msgspec
from msgspec import UNSET, Struct

from honeyhive_batcher.core.cycle import has_cycle
from honeyhive_batcher.core.fields import is_plain, struct_fields
from honeyhive_batcher.core.fragment import APPENDED, ID_LENGTH, Fragment, Ids, Repaired
from honeyhive_batcher.core.model import Admission
from honeyhive_batcher.core.to_json import (
    FIRST_GUESS,
    SLACK,
    encode_into,
    encode_within,
    likely_nulls_in,
    nonfinite,
)

_ABSENT = object()
_TOO_MUCH = 8  # times the room that an event takes: then the next one gets less
_SMALLEST = 3  # bytes of an object that holds something
_BRACE, _COMMA, _SPACE = b"{, "
_ID_OPENING = b'"event_id":"'
_ID_MEMBER = len(_ID_OPENING) + ID_LENGTH + 2
_NEAR = 256
"""How far from its beginning an event is searched for the id that the application gave it. CPython has the
integers up to here once for all."""


class Refusal(Struct, frozen=True, kw_only=True):
    """Why something can never be an event, in words for its producer, without its content."""

    admission: Admission
    message: str


@final
class EventEncoder:
    """Turns events into bytes and fills in what they leave out. Safe in any thread: all it changes is a
    guess at the size of the next event.
    """

    def __init__(
        self,
        *,
        max_event_bytes: int,
        defaults: Mapping[str, str | None],
        ids: Ids,
        repair: Callable[[object, int], tuple[bytearray | None, int]],
    ) -> None:
        self._max_bytes = max_event_bytes
        self._names = tuple(name for name, value in defaults.items() if value is not None)
        self._looked_for = ("event_id", "error", *self._names)
        self._ids = ids
        self._repair = repair
        self._guess = min(FIRST_GUESS, max_event_bytes + SLACK)  # room for the next event, by those before it
        # What to append for every combination of absent fields, by bit mask.
        members = [b'"%b":%b,' % (name.encode(), msgspec.json.encode(defaults[name])) for name in self._names]
        self._fillings = [
            b"".join(member for bit, member in enumerate(members) if mask >> bit & 1)
            for mask in range(1 << len(members))
        ]
        # Of what sizes the usual events are.
        self._least, self._most = _SMALLEST, max_event_bytes - _ID_MEMBER - sum(map(len, members))

    def encode(self, event: object) -> Fragment | Refusal:
        """Return the bytes of `event` with its `event_id`, or why it cannot be one. Never changes it."""
        filling = b""
        if isinstance(event, dict):
            event_id = event.get("event_id", _ABSENT)
            if self._names:
                filling = self._fillings[self._lacks(event)]
            nulls = event.get("error", UNSET) is None
        elif isinstance(event, Struct):
            if event.__struct_config__.array_like:
                return _not_an_event(event)
            if not is_plain(type(event), self._looked_for):
                return self.encode(struct_fields(event))
            event_id = getattr(event, "event_id", UNSET)
            event_id = _ABSENT if event_id is UNSET else event_id
            filling = self._fillings[self._struct_lacks(event)]
            nulls = getattr(event, "error", UNSET) is None
        elif isinstance(event, Mapping):
            return self.encode(dict(event))
        else:
            return _not_an_event(event)
        if event_id is not _ABSENT and (
            type(event_id) is not str or not event_id.isprintable() or not event_id
        ):
            return self._encode_with_odd_id(event, event_id)

        # The usual event by hand, in as few steps as it takes: every step is a part of a push's cost.
        buffer = bytearray(self._guess)
        view = memoryview(buffer)  # while it lives, the buffer cannot grow
        try:
            encode_into(event, buffer)
            is_odd = len(likely_nulls_in(buffer)) > nulls and nonfinite(event, buffer, nulls) > 0
        except Exception:  # too long, what the encoder cannot have, what foreign objects raise when read
            is_odd = True
        finally:
            del view
        if is_odd:
            return self._encode_carefully(event, event_id, filling, nulls=nulls)
        if event_id is _ABSENT and self._least <= len(buffer) <= self._most:
            buffer[-1] = _COMMA
            data = b"".join((buffer, filling, _ID_OPENING, self._ids.next(), b'"}'))
            return Fragment(data, APPENDED)
        return self._completed(buffer, event_id, filling)

    def _encode_carefully(
        self, event: Any, event_id: Any, filling: bytes, *, nulls: int
    ) -> Fragment | Refusal:
        """Encode what is longer than recent events, or holds what JSON has no word for."""
        max_bytes = self._max_bytes - len(filling) - (_ID_MEMBER if event_id is _ABSENT else 0)
        buffer, repairs = None, 0
        try:
            buffer = encode_within(event, max_bytes, 8 * self._guess)
            repairs = 0 if buffer is None else nonfinite(event, buffer, nulls)
            is_odd = buffer is None and has_cycle(event)  # the encoder ran out of room before it noticed
        except Exception:
            is_odd = True
        if is_odd:
            buffer, repairs = self._repair(event, max_bytes)
        if buffer is None:
            return _too_large(self._max_bytes)
        if buffer[0] != _BRACE:
            return _not_an_event(event)
        return self._completed(buffer, event_id, filling, repairs)

    def _completed(
        self, buffer: bytearray, event_id: Any, filling: bytes, repairs: int = 0
    ) -> Fragment | Refusal:
        """Return the fragment of an encoded event, with what it does not say itself."""
        size = len(buffer)
        if size + len(filling) + (_ID_MEMBER if event_id is _ABSENT else 0) > self._max_bytes:
            return _too_large(self._max_bytes)
        if size < self._least or size > self._guess:
            self._guess = min(max(FIRST_GUESS, 2 * size), self._max_bytes + SLACK)
            self._least = _SMALLEST if self._guess <= FIRST_GUESS else self._guess // _TOO_MUCH
        # Into bytes of its own: the buffer has room that nobody uses, and would take it into the queue.
        name: int | str = APPENDED
        if event_id is _ABSENT:
            buffer[-1] = _COMMA if size > 2 else _SPACE
            data = b"".join((buffer, filling, _ID_OPENING, self._ids.next(), b'"}'))
        else:
            name = event_id
            if b'"' not in (text := event_id.encode()):
                place = buffer.find(b'"%b"' % text, 0, _NEAR + len(text))
                name = place + 1 if place >= 0 else name
            if filling:
                buffer[-1] = _COMMA
                data = b"".join((buffer, filling[:-1], b"}"))
            else:
                data = bytes(buffer)
        return Repaired(data, name, repairs=repairs) if repairs else Fragment(data, name)

    def _lacks(self, event: dict[Any, Any]) -> int:
        """Return the mask of what an event does not have."""
        mask = 0
        bit = 1
        for field in self._names:
            if field not in event:
                mask |= bit
            bit <<= 1
        return mask

    def _struct_lacks(self, event: Struct) -> int:
        """Return the mask of what a plain Struct does not have."""
        mask = 0
        for place, field in enumerate(self._names):
            if getattr(event, field, UNSET) is UNSET:
                mask |= 1 << place
        return mask

    def _encode_with_odd_id(self, event: Any, event_id: object) -> Fragment | Refusal:
        """Encode with a usable id in place of one that is not a plain string; a null is as good as none."""
        fields = dict(event) if isinstance(event, dict) else struct_fields(event)
        fields.pop("event_id", None)
        is_lost = False
        if type(event_id).__name__ == "UUID" or type(event_id) is int:
            fields["event_id"] = str(event_id)
        elif isinstance(event_id, str) and type(event_id) is not str:
            fields["event_id"] = str.__str__(event_id)
        else:
            is_lost = event_id is not None and event_id is not UNSET
        fragment = self.encode(fields)
        if isinstance(fragment, Fragment) and is_lost:
            return Repaired(fragment.data, fragment.name, repairs=fragment.repairs + 1)
        return fragment


def _not_an_event(event: object) -> Refusal:
    return Refusal(
        admission=Admission.NOT_AN_EVENT,
        message=f"an event is a mapping or a Struct with named fields, not {type(event).__name__}",
    )


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(
        admission=Admission.TOO_LARGE,
        message=f"the encoded event is larger than {max_bytes} bytes",
    )
