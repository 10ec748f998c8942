"""A line becomes an event, or a reason why it is none."""

import json
import uuid
from typing import Any, NoReturn

import msgspec
from msgspec import Raw

_BOM = b"\xef\xbb\xbf"  # what some programs on Windows put in front of a file


class LineError(Exception):
    """The line is no event; the message says why."""


def read_event(data: bytes, *, is_first: bool = False) -> tuple[str, dict[str, Any]]:
    """Return the id and the event in a line; an id is made when the line has none.

    Values stay the bytes they are (`Raw`): a number decoded and encoded again could come out as
    another one. They are decoded all the same, and thrown away, to find what no server could read.

    Raises:
        LineError: The line is not a JSON object, not UTF-8, or holds what cannot be read.
    """
    if is_first:
        data = data.removeprefix(_BOM)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise LineError(f"not UTF-8 (byte {error.start + 1})") from None
    try:
        decoded = msgspec.json.decode(data)
        if not isinstance(decoded, dict):
            raise LineError("not a JSON object")
        event: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LineError(_reason(text, error)) from None
    except RecursionError:
        raise LineError("nested too deep") from None
    event_id = decoded.get("event_id")
    if event_id is None:
        event_id = str(uuid.uuid4())
    elif not isinstance(event_id, str) or not event_id or not event_id.isprintable():
        raise LineError("event_id is not a string of printable characters")
    event["event_id"] = event_id
    return event_id, event


def _reason(text: str, error: Exception) -> str:
    """Return what is wrong; msgspec takes half of a surrogate pair for the end of the line."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        pass
    else:
        if not isinstance(error, msgspec.ValidationError):
            return "a string in it holds half of a character (a lone surrogate)"
    reason = str(error).partition(" - at ")[0]
    return f"{reason[:1].lower()}{reason[1:]}" if reason[:4] != "JSON" else reason


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
