"""A value that JSON has no word for is replaced where it stands, so that it never costs the event.

Only failing branches are walked: every branch is offered to the encoder first, and what it takes is
kept as bytes. Time and space are bounded: by depth, by values looked at, and by the bytes kept.
"""

import math
import re
from decimal import Decimal
from typing import Any, final

import msgspec
from msgspec import Raw, Struct

from honeyhive_batcher.core.cycle import MAX_VISITS, has_cycle
from honeyhive_batcher.core.fields import field_names, struct_fields
from honeyhive_batcher.core.to_json import FAILURES, NOT_JSON, encode_within, nonfinite, plain

MAX_DEPTH = 200
"""Levels that a repaired branch keeps; real events stay below 64."""


_MAX_BITS = 2048
"""Longer integers are not written out: that takes quadratic time, and Python refuses it in the end."""


class _TooLargeError(Exception):
    """The bytes kept exceed the limit."""


def repair(value: object, max_bytes: int) -> tuple[bytearray | None, int]:
    """Return the JSON of `value` with everything odd replaced, and how many replacements it took.

    None in place of the JSON means that it is longer than `max_bytes`. Numbers that are not finite
    become null, a lone surrogate the replacement character, keys strings; a cycle, what is nested too
    deep and what cannot be converted become a short marker that names the type and never shows the value.
    """
    walk = _Walk(max_bytes)
    try:
        return encode_within(walk.repaired(value, 0), max_bytes), walk.repairs
    except _TooLargeError:
        return None, walk.repairs


def encode_anyway(value: object, max_bytes: int) -> tuple[bytearray | None, int]:
    """Return the same as `repair`, but walk only if the encoder cannot have `value` as it is."""
    try:
        return encode_within(value, max_bytes), 0
    except Exception:  # what its own methods raise
        return repair(value, max_bytes)


_BARE_NUMBER = re.compile(rb'("(?:[^"\\]++|\\.)*+")|-?(?:s?NaN\d*|Infinity)', re.DOTALL)


def mend(data: bytes) -> bytes | None:
    """Return `data` with every bare NaN and infinity made null, or None if it is JSON as it is.

    Only a `Decimal` that is not finite gets past the encoder like that. It is too rare to be looked
    for in every event (half the cost of encoding it), so it is looked for in what the server refused.
    """
    try:
        msgspec.json.decode(data, type=Raw)
    except RecursionError:
        return None  # nested so deep that it cannot be looked at from here
    except NOT_JSON:
        return _BARE_NUMBER.sub(lambda found: found[1] or b"null", data)
    return None


@final
class _Walk:
    """One walk through one value: what was repaired, and what is left of the limits."""

    def __init__(self, max_bytes: int) -> None:
        self.repairs = 0
        self._visits = 0
        self._bytes_left = max_bytes
        self._path: set[int] = set()  # containers being walked: to meet one again is a cycle

    def repaired(self, value: Any, depth: int) -> Any:
        """Return something in place of `value` that the encoder takes."""
        try:
            return self._repaired(value, depth)
        except _TooLargeError:
            raise
        except Exception:  # its class, or a method that a string has, may raise anything
            return self._marker("not JSON", value)

    def _repaired(self, value: Any, depth: int) -> Any:
        self._visits += 1
        if isinstance(value, str):
            self._bytes_left -= len(value)
            if self._bytes_left < 0:
                raise _TooLargeError
            return value if value.isascii() else self._text(value)
        if type(value) is int and value.bit_length() > _MAX_BITS:
            return self._marker("too many digits", value)
        if value is None or type(value) in (bool, int):
            return value
        if isinstance(value, (float, Decimal)) and not _is_finite(value):
            self.repairs += 1
            return None
        if id(value) in self._path:
            return self._marker("cycle", value)
        if depth > MAX_DEPTH or self._visits > MAX_VISITS:
            return self._marker("too deep" if depth > MAX_DEPTH else "too many values", value)
        taken = self._taken(value) if depth else None
        if taken is not None:
            return taken
        self._path.add(id(value))
        try:
            return self._walked(value, depth + 1)
        except RecursionError:  # the caller's own stack is nearly full
            return self._marker("too deep", value)
        except _TooLargeError:
            raise
        except Exception:  # whatever foreign code raises, or another thread that changes it meanwhile
            return self._marker("not JSON", value)
        finally:
            self._path.discard(id(value))

    def _taken(self, value: Any) -> Raw | None:
        """Return the bytes of `value` if the encoder takes it as it is."""
        try:
            data = encode_within(value, self._bytes_left)
            if data is None:
                if has_cycle(value):
                    return None
                raise _TooLargeError  # noqa: TRY301 - of the whole, not of this branch
            lost = nonfinite(value, data, 0)
            msgspec.json.decode(data, type=Raw)  # a Decimal that is not finite is written as it is
        except _TooLargeError:
            raise
        except Exception:  # what its own methods raise
            return None
        self.repairs += lost
        self._bytes_left -= len(data)
        return Raw(data)

    def _walked(self, value: Any, depth: int) -> Any:
        if isinstance(value, dict):
            return {self._key(key): self.repaired(item, depth) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.repaired(item, depth) for item in value]
        if isinstance(value, Struct):
            return {name: self.repaired(item, depth) for name, item in struct_fields(value).items()}
        names = field_names(value)
        if names is not None:
            return {name: self.repaired(self._read(value, name), depth) for name in names}
        return self.repaired(plain(value), depth)

    def _read(self, value: Any, name: str) -> Any:
        try:
            return getattr(value, name)
        except Exception:  # a property may raise anything
            return self._marker("unreadable", value)

    def _key(self, key: Any) -> str:
        if type(key) is str:
            return key if key.isascii() else self._text(key)
        try:
            (text,) = msgspec.json.decode(msgspec.json.encode({key: 0}), type=dict[str, int])
        except FAILURES:
            self.repairs += 1
            try:
                return self._text(str(key)[:200])
            except Exception:  # `str` runs foreign code
                return f"<not JSON: {_type_name(key)}>"
        return text

    def _text(self, text: str) -> str:
        mended = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if mended != text:
            self.repairs += 1
        return mended

    def _marker(self, why: str, value: object) -> str:
        self.repairs += 1
        return f"<{why}: {_type_name(value)}>"


def _is_finite(number: float | Decimal) -> bool:
    return number.is_finite() if isinstance(number, Decimal) else math.isfinite(number)


def _type_name(value: object) -> str:
    return type(value).__name__.encode("ascii", "replace").decode()
