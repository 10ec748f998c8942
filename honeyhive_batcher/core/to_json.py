"""A value becomes JSON bytes, within a bound, whatever it holds.

Why a buffer that cannot grow: the encoder notices a cycle only at the interpreter's recursion limit,
and by then its content has been written a thousand times (CPython 3.11) or ten thousand times (3.13:
one megabyte in a cycle took 9.7 GB and 15 s). A `bytearray` that a `memoryview` looks at refuses to
grow, so the encoder stops at the limit instead.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

NOT_JSON = (msgspec.MsgspecError, ValueError)
"""What the decoder raises for what is not JSON. Before msgspec 0.20 its errors are no ValueError."""
FAILURES = (TypeError, *NOT_JSON, RuntimeError, OverflowError, AttributeError)
"""What the encoder raises for a value it cannot have: odd keys and types, lone surrogates, cycles (their
RecursionError is a RuntimeError), and what foreign objects raise when their fields are read."""

MAX_ARRAY_ITEMS = 1_000_000
"""Larger arrays are not turned into lists: that alone would cost gigabytes and seconds."""
SLACK = 64
"""Bytes: the encoder wants a little more room than it fills; 19 were the most seen."""
FIRST_GUESS = 4096
"""Bytes of room for a value of which nothing is known."""

_nulls_in = re.compile(b"null").findall
"""Finds every null. It takes two thirds of the time of `data.count(b"null")`."""
likely_nulls_in = re.compile(b"ull").findall
"""Finds every null, and "full" and its like. So many words begin with an n that to look for that as well
takes a third more time in real texts.
"""
_NONFINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]", re.DOTALL)
# In msgpack, a float whose exponent is all ones: NaN or an infinity. UTF-8 text cannot hold it.


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


encode_into = msgspec.json.Encoder(decimal_format="number", enc_hook=plain).encode_into
"""Writes the JSON of a value into a buffer. With a buffer that cannot grow, it raises BufferError."""
_MSGPACK = msgspec.msgpack.Encoder(enc_hook=plain)


def encode_within(value: object, max_bytes: int, guess: int = FIRST_GUESS) -> bytearray | None:
    """Return the JSON of `value`, or None if it is longer than `max_bytes`. Never holds much more.

    Raises:
        TypeError, ValueError, RecursionError, OverflowError, AttributeError: see `FAILURES`.
    """
    most = max(max_bytes, 0) + SLACK  # what the defaults take may leave less than nothing
    room = min(guess, most)
    while True:
        buffer = bytearray(room)
        view = memoryview(buffer)  # while it lives, the buffer cannot grow
        try:
            encode_into(value, buffer)
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
