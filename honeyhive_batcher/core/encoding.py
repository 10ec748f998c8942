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
_BRACE, _COMMA, _SPACE = b"{, "
_ID_OPENING = b'"event_id":"'
_ID_MEMBER = len(_ID_OPENING) + ID_LENGTH + 2
_NEAR = 256
"""How far from its beginning an event is searched for the id that the application gave it. CPython has the
integers up to here once for all."""
_nulls_in = re.compile(b"null").findall
"""Finds every null. It takes two thirds of the time of `data.count(b"null")`."""
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
        self._guess = _FIRST_GUESS  # at most twice what recent events really took
        # What to append for every combination of absent fields, by bit mask.
        members = [b'"%b":%b,' % (name.encode(), msgspec.json.encode(defaults[name])) for name in self._names]
        self._fillings = [
            b"".join(member for bit, member in enumerate(members) if mask >> bit & 1)
            for mask in range(1 << len(members))
        ]

    def encode(self, event: object) -> Fragment | Refusal:
        """Return the bytes of `event` with its `event_id`, or why it cannot be one. Never changes it."""
        mask = 0
        if isinstance(event, dict):
            event_id = event.get("event_id", _ABSENT)
            if self._names:
                mask = self._lacks(event)
            nulls = event.get("error", UNSET) is None
        elif isinstance(event, Struct):
            if not is_plain(type(event), self._looked_for):
                return self.encode(struct_fields(event))
            event_id, mask, nulls = self._fields_of(event)
        elif isinstance(event, Mapping):
            return self.encode(dict(event))
        else:
            return _not_an_event(event)
        filling = self._fillings[mask]
        max_bytes = self._max_bytes - len(filling)
        if event_id is _ABSENT:
            max_bytes -= _ID_MEMBER
        elif type(event_id) is not str or not event_id.isprintable() or not event_id:
            return self._encode_with_odd_id(event, event_id)

        # The usual case of `encode_within` and `nonfinite`, by hand: every call is a part of a push's cost.
        repairs = 0
        buffer: Any = bytearray(self._guess)
        view = memoryview(buffer)  # while it lives, the buffer cannot grow
        try:
            try:
                _encode_into(event, buffer)
            except BufferError:
                buffer = self._encode_long(event, max_bytes)
            if buffer is not None and len(_nulls_in(buffer)) > nulls:
                repairs = nonfinite(event, buffer, nulls)
        except Exception:  # what the encoder cannot have, and what foreign objects raise when they are read
            buffer, repairs = self._repair(event, max_bytes)
        finally:
            del view
        if buffer is None or (size := len(buffer)) > max_bytes:
            return _too_large(self._max_bytes)
        if buffer[0] != _BRACE:
            return _not_an_event(event)
        if 2 * size > self._guess or 8 * size < self._guess:
            self._guess = min(max(_FIRST_GUESS, 2 * size), self._max_bytes + _SLACK)
        # Into bytes of its own: the buffer has room that nobody uses, and would take it into the queue.
        name: int | str = APPENDED
        if event_id is _ABSENT:
            buffer[size - 1] = _COMMA if size > 2 else _SPACE
            data = b"".join((buffer, filling, _ID_OPENING, self._ids.next(), b'"}'))
        else:
            name = event_id
            if b'"' not in (text := event_id.encode()):
                place = buffer.find(b'"%b"' % text, 0, _NEAR + len(text))
                name = place + 1 if place >= 0 else name
            if filling:
                buffer[size - 1] = _COMMA
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

    def _fields_of(self, event: Struct) -> tuple[Any, int, bool]:
        """Return the id of a plain Struct, the mask of what it lacks, and whether its error is None."""
        event_id = getattr(event, "event_id", UNSET)
        mask = 0
        for place, field in enumerate(self._names):
            if getattr(event, field, UNSET) is UNSET:
                mask |= 1 << place
        return _ABSENT if event_id is UNSET else event_id, mask, getattr(event, "error", UNSET) is None

    def _encode_long(self, event: object, max_bytes: int) -> bytearray | None:
        """Encode what is longer than recent events, within the bound; None if it is longer than that."""
        data = encode_within(event, max_bytes, 8 * self._guess)
        if data is None and has_cycle(event):
            raise RecursionError  # as the encoder would, had it not run out of room first
        return data

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
