"""Pieces of messages, put together as they come."""

from collections.abc import Mapping
from typing import Any, final

_FIXED = {"id", "index", "name", "object", "role", "type"}
"""Texts that come whole, and more than once."""


@final
class _Pieces(list[str]):
    """A text that is not joined yet: each join of a long one would cost as much as all before."""


@final
class _Rows(dict[int, Any]):
    """A list whose items are told apart by their `index`."""


def merge(into: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Add what is new to what has come: texts are continued, items of lists are found by their `index`."""
    for name, value in delta.items():
        if value is None:
            into.setdefault(name, None)
        elif isinstance(value, str) and name not in _FIXED:
            pieces = into.get(name)
            if isinstance(pieces, _Pieces):
                pieces.append(value)
            else:
                into[name] = _Pieces([pieces, value] if isinstance(pieces, str) else [value])
        elif isinstance(value, Mapping):
            known = into.get(name)
            if not isinstance(known, dict):
                known = into[name] = {}
            merge(known, value)
        elif isinstance(value, list):
            rows = into.get(name)
            if not isinstance(rows, _Rows):
                rows = into[name] = _Rows()
            for place, row in enumerate(value):
                if isinstance(row, Mapping):
                    index = row.get("index")
                    merge(rows.setdefault(index if isinstance(index, int) else place, {}), row)
                else:
                    rows[len(rows)] = row
        else:
            into[name] = value


def joined(value: Any) -> Any:
    """Return what has come, as plain values."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, _Rows):
        return [_without_index(joined(value[place])) for place in sorted(value)]
    if isinstance(value, dict):
        return {name: joined(each) for name, each in value.items()}
    return value


def _without_index(row: Any) -> Any:
    """Return an item as it is where it comes whole."""
    return {name: each for name, each in row.items() if name != "index"} if isinstance(row, dict) else row
