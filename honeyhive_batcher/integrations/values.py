"""Reading what others say of a call: JSON text, flat keys, counts of tokens, calls of tools, errors."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

_MAX_DIGITS = 4
"""Of the place in a flat list: a key with more is rubbish."""


def event_with(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event with these fields, those that are None left out.

    Its type is named: without that, HoneyHive's first documentation applies, by which a call that failed
    could not be told, because it has no `response` and no `usage`.
    """
    return {"event_type": "model", **{name: value for name, value in fields.items() if value is not None}}


def present(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the values that are not None, at two levels; None when none is left."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            value = {inner: each for inner, each in value.items() if each is not None} or None  # noqa: PLW2901
        if value is not None:
            found[name] = value
    return found or None


def stated(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request's body says. What is no JSON, as a client's mark for what was not given, is left
    out.
    """
    return {
        name: value
        for name, value in body.items()
        if isinstance(value, (str, int, float, list, tuple, Mapping))
    }


def parameters(body: Mapping[str, Any], others: Collection[str]) -> dict[str, Any] | None:
    """Return what a request's body says beside `others`."""
    return {name: value for name, value in body.items() if name not in others} or None


def decoded(value: Any) -> Any:
    """Return what a JSON text means; what is no JSON, and what is no text, as it is."""
    if isinstance(value, str):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
    return value


def items(value: Any) -> list[Any]:
    """Return the items of a list or tuple, given as such or as JSON text; nothing of anything else."""
    value = decoded(value)
    return list(value) if isinstance(value, (list, tuple)) else []


def mapping(value: Any) -> dict[str, Any]:
    """Return an object, given as such or as JSON text; an empty one for anything else."""
    value = decoded(value)
    return dict(value) if isinstance(value, Mapping) else {}


def nested(attributes: Mapping[str, Any], prefix: str) -> list[Any]:
    """Return the list that keys like `prefix.0.role` spell, each item an object, in their order."""
    rows: dict[int, dict[str, Any]] = {}
    start = prefix + "."
    for key, value in attributes.items():
        if key.startswith(start):
            place, _, name = key[len(start) :].partition(".")
            if name and place.isdecimal() and len(place) <= _MAX_DIGITS:
                rows.setdefault(int(place), {})[name] = value
    return [rows[place] for place in sorted(rows)]


def count(*values: Any) -> int | None:
    """Return the first that is a count of tokens."""
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0), None)


def usage(
    prompt: int | None,
    completion: int | None,
    total: int | None,
    prompt_details: Mapping[str, Any],
    completion_details: Mapping[str, Any],
) -> dict[str, Any] | None:
    """Return counts of tokens by OpenAI's names, None when nothing is known."""
    if total is None and prompt is not None and completion is not None:
        total = prompt + completion
    counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    for name, details in (
        ("prompt_tokens_details", prompt_details),
        ("completion_tokens_details", completion_details),
    ):
        counts[name] = {key: value for key, value in details.items() if value is not None} or None
    return {name: value for name, value in counts.items() if value is not None} or None


def tool_call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    """Return a call of a tool as OpenAI's chat writes it: the arguments are JSON text."""
    if arguments is not None and not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def one_or_all(messages: list[dict[str, Any]]) -> dict[str, Any] | list[Any] | None:
    """Return what a model answered: its message, or all of them when there are several choices."""
    return messages[0] if len(messages) == 1 else messages or None


def cost(*values: Any) -> float | None:
    """Return the first that is an amount of money."""
    return next((float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)), None)


def text(*values: Any) -> str | None:
    """Return the first that is a text with something in it."""
    return next((v for v in values if isinstance(v, str) and v), None)


def failure(message: object, kind: object) -> str | None:
    """Return an error as "kind: message", as far as they are known. None when nothing is."""
    name = str(kind).rpartition(".")[2] if kind and kind != "_OTHER" else ""
    if message is None:
        return name or None
    told = str(message)
    if not name or told.startswith((name, str(kind))) or f"{name}: " in told:
        return told or "the call failed"
    return f"{name}: {told}" if told else name
