"""An event becomes JSON bytes, once, whatever it holds.

The fast path is one msgspec encode into a buffer that cannot grow. Only when that fails, for a value
JSON has no word for, are the failing branches walked (`repair`).

Why a buffer that cannot grow: the encoder notices a cycle only at the interpreter's recursion limit,
and by then its content has been written a thousand times (CPython 3.11) or ten thousand times (3.13:
one megabyte in a cycle took 9.7 GB and 15 s). A `bytearray` that a `memoryview` looks at refuses to
grow, so the encoder stops at the limit instead.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import msgspec
from msgspec import UNSET, Struct

from honeyhive_batcher.core.cycle import has_cycle
from honeyhive_batcher.core.fields import is_plain, struct_fields
from honeyhive_batcher.core.fragment import APPENDED, ID_LENGTH, Fragment, Ids, Repaired
from honeyhive_batcher.core.model import Admission

NOT_JSON = (msgspec.MsgspecError, ValueError)
"""What the decoder raises for what is not JSON. Before msgspec 0.20 its errors are no ValueError."""
FAILURES = (TypeError, *NOT_JSON, RuntimeError, OverflowError, AttributeError)
"""What the encoder raises for a value it cannot have: odd keys and types, lone surrogates, cycles (their
RecursionError is a RuntimeError), and what foreign objects raise when their fields are read."""

MAX_ARRAY_ITEMS = 1_000_000
"""Larger arrays are not turned into lists: that alone would cost gigabytes and seconds."""

_ABSENT = object()
_SLACK = 64  # the encoder wants a little more room than it fills; 19 bytes were the most seen
_FIRST_GUESS = 4096
_TOO_MUCH = 8  # times the room that an event takes: then the next one gets less
_SMALLEST = 3  # bytes of an object that holds something
_BRACE, _COMMA, _SPACE = b"{, "
_ID_OPENING = b'"event_id":"'
_ID_MEMBER = len(_ID_OPENING) + ID_LENGTH + 2
_NEAR = 256
"""How far from its beginning an event is searched for the id that the application gave it. CPython has the
integers up to here once for all."""
_nulls_in = re.compile(b"null").findall
"""Finds every null. It takes two thirds of the time of `data.count(b"null")`."""
_likely_nulls_in = re.compile(b"ull").findall
"""Finds every null, and "full" and its like. So many words begin with an n that to look for that as well
takes a third more time in real texts.
"""
_NONFINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]", re.DOTALL)
# In msgpack, a float whose exponent is all ones: NaN or an infinity. UTF-8 text cannot hold it.


class Refusal(Struct, frozen=True, kw_only=True):
    """Why something can never be an event, in words for its producer, without its content."""

    admission: Admission
    message: str


def plain(value: Any) -> Any:
    """Return what stands for a value that msgspec does not know: the encoder's hook.

    Raises:
        TypeError: Nothing stands for it.
    """
    try:
        if hasattr(value, "model_dump"):  # pydantic and its like
            return value.model_dump()
        if hasattr(value, "tolist"):  # numpy scalars and arrays, tensors
            size: Any = getattr(value, "size", 1)
            if callable(size):
                size = value.numel()  # torch
            if size <= MAX_ARRAY_ITEMS:
                return value.tolist()
        elif hasattr(value, "item"):
            return value.item()
        elif isinstance(value, str):
            return str.__str__(value)
        elif isinstance(value, int):
            return int(value)
        elif isinstance(value, float):
            return float(value)
        elif isinstance(value, Mapping):
            return dict(value)
        elif isinstance(value, Iterable) and not hasattr(value, "__next__"):
            return list(value)  # an iterator is left alone: reading it would take it from its owner
        elif value is UNSET:
            return None
    except Exception:  # whatever foreign code raises; it is a TypeError to the encoder
        raise TypeError from None
    raise TypeError


_encode_into = msgspec.json.Encoder(decimal_format="number", enc_hook=plain).encode_into
_MSGPACK = msgspec.msgpack.Encoder(enc_hook=plain)


def encode_within(value: object, max_bytes: int, guess: int = _FIRST_GUESS) -> bytearray | None:
    """Return the JSON of `value`, or None if it is longer than `max_bytes`. Never holds much more.

    Raises:
        TypeError, ValueError, RecursionError, OverflowError, AttributeError: see `FAILURES`.
    """
    most = max(max_bytes, 0) + _SLACK  # what the defaults take may leave less than nothing
    room = min(guess, most)
    while True:
        buffer = bytearray(room)
        view = memoryview(buffer)  # while it lives, the buffer cannot grow
        try:
            _encode_into(value, buffer)
        except BufferError:
            if room == most:
                return None
            room = min(8 * room, most)
            continue
        finally:
            del view
        return buffer if len(buffer) <= max_bytes else None


def nonfinite(value: object, data: bytearray, nulls: int) -> int:
    """Return how many NaN and infinities of `value` became null in `data`, beyond `nulls` known Nones.

    The encoder writes them as null without a word. Counting the nulls is cheap; only where there are
    more than are explained does a second encode tell.

    Raises:
        OverflowError: An integer does not fit into 64 bits, so that msgpack cannot tell.
    """
    if len(_nulls_in(data)) <= nulls:
        return 0
    return len(_NONFINITE.findall(_MSGPACK.encode(value)))


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
        self._guess = min(
            _FIRST_GUESS, max_event_bytes + _SLACK
        )  # room for the next event, by those before it
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
            _encode_into(event, buffer)
            is_odd = len(_likely_nulls_in(buffer)) > nulls and nonfinite(event, buffer, nulls) > 0
        except (
            Exception
        ):  # too long; or what the encoder cannot have, and what foreign objects raise when read
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
            self._guess = min(max(_FIRST_GUESS, 2 * size), self._max_bytes + _SLACK)
            self._least = _SMALLEST if self._guess <= _FIRST_GUESS else self._guess // _TOO_MUCH
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
