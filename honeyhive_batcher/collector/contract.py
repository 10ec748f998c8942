"""The documented contract: what a request body must hold to be taken.

Two documents describe the same route and disagree. The first one (OpenAPI 1.0.4, and the page "Create
a batch of model events") requires seven fields per event; OpenAPI 1.9.0 requires none of them and calls
several of any type. An event that carries `event_type` or `model_name` is judged by the second document,
any other by the first. Types are those of the first document, widened where the second says "any" to
what providers really answer with: `response` may be an array, a string or null, `cost` a string or null.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from honeyhive_batcher.collector.refusal import RefusedError

_OBJECT: Final = ("object",)
_OBJECT_OR_NULL: Final = ("object", "null")
_STRING: Final = ("string",)
_STRING_OR_NULL: Final = ("string", "null")
_NUMBER: Final = ("number",)
_BOOLEAN: Final = ("boolean",)

CLASSIC_FIELDS: Final = ("project", "model", "provider", "messages", "response", "duration", "usage")
"""Required of an event by OpenAPI 1.0.4, in its order."""

EVENT_TYPES: Final = ("model", "tool", "chain", "session")
"""Values of `event_type`, OpenAPI 1.1.0."""

_BATCH_FIELDS: Final = {
    "model_events": ("array",),
    "is_single_session": _BOOLEAN,
    "single_session": _BOOLEAN,
    "session_properties": _OBJECT,
    "session": _OBJECT,
}

_EVENT_FIELDS: Final = {
    "project": _STRING,
    "model": _STRING,
    "provider": _STRING,
    "messages": ("array",),
    "response": ("object", "array", "string", "null"),
    "duration": _NUMBER,
    "usage": _OBJECT,
    "cost": ("number", "string", "null"),
    "error": _STRING_OR_NULL,
    "source": _STRING,
    "event_name": _STRING,
    "hyperparameters": _OBJECT,
    "template": ("array", "object", "string", "null"),
    "template_inputs": _OBJECT_OR_NULL,
    "tools": ("array", "null"),
    "tool_choice": ("string", "object", "null"),
    "response_format": _OBJECT_OR_NULL,
    # From here on: OpenAPI 1.1.0 and 1.9.0.
    "event_id": _STRING,
    "session_id": _STRING,
    "parent_id": _STRING,
    "children_ids": ("array",),
    "event_type": _STRING,
    "config": _OBJECT_OR_NULL,
    "inputs": _OBJECT,
    "outputs": ("object", "array", "null"),
    "start_time": _NUMBER,
    "end_time": _NUMBER,
    "metadata": _OBJECT_OR_NULL,
    "feedback": _OBJECT_OR_NULL,
    "metrics": _OBJECT_OR_NULL,
    "user_properties": _OBJECT_OR_NULL,
    "project_id": _STRING,
    "model_name": _STRING,
    "model_version": _STRING,
}

_SESSION_FIELDS: Final = {
    "session_name": _STRING,
    "source": _STRING,
    "session_id": _STRING,
    "config": _OBJECT,
    "inputs": _OBJECT,
    "outputs": _OBJECT,
    "error": _STRING_OR_NULL,
    "user_properties": _OBJECT,
    "metrics": _OBJECT,
    "feedback": _OBJECT,
    "metadata": _OBJECT,
    "start_time": _NUMBER,
}

_UPDATE_FIELDS: Final = {
    "event_id": _STRING,
    "metadata": _OBJECT_OR_NULL,
    "feedback": _OBJECT_OR_NULL,
    "metrics": _OBJECT_OR_NULL,
    "config": _OBJECT_OR_NULL,
    "user_properties": _OBJECT_OR_NULL,
    "outputs": _OBJECT_OR_NULL,
    "error": _STRING_OR_NULL,
    "duration": _NUMBER,
    "end_time": _NUMBER,
    "children_ids": ("array",),
}


class ReceivedEvent(Struct, frozen=True, kw_only=True):
    """One element of `model_events`, found to be in order."""

    raw: bytes
    """The element as it came, byte for byte, without the white space around it."""
    fields: dict[str, Any]
    """The same, decoded."""


class ReceivedBatch(Struct, frozen=True, kw_only=True):
    """A body of `POST /events/model/batch`, found to be in order."""

    events: tuple[ReceivedEvent, ...]
    session: dict[str, Any] | None
    """Properties of the one session of all events; None when no single session was asked for."""


class ReceivedUpdate(Struct, frozen=True, kw_only=True):
    """A body of `PUT /events`, found to be in order."""

    event_id: str
    changes: dict[str, Any]
    """The documented fields that change something; unknown ones are ignored (OpenAPI 1.9.0)."""


def parse_batch(body: bytes) -> ReceivedBatch:
    """Read a body of `POST /events/model/batch`.

    Raises:
        RefusedError: with status 400, naming the first field that is missing or wrong.
    """
    parts = {name: bytes(part) for name, part in _decoded(body, dict[str, Raw], "body").items()}
    array = parts.get("model_events")
    if array is None:
        raise _refused("model_events: required")
    elements: list[Raw] = []
    if array.startswith(b"["):
        # Left encoded, to be cut into its elements: what is stored is what came, byte for byte.
        elements = _decoded(parts.pop("model_events"), list[Raw], "model_events")
    # Unknown members are allowed, but not ones that are no JSON at all.
    top = {name: _decoded(part, Any, name) for name, part in parts.items()}
    _check_types(top, _BATCH_FIELDS, "")
    if not elements:
        raise _refused("model_events: must hold at least one event")
    events = tuple(_event(bytes(raw), f"model_events[{at}]") for at, raw in enumerate(elements))
    for name in ("session_properties", "session"):
        if name in top:
            _check_types(top[name], _SESSION_FIELDS, f"{name}.")
            _check_not_empty(top[name], "session_id", f"{name}.")
    session: dict[str, Any] | None = None
    if top.get("is_single_session") or top.get("single_session"):
        # `session` is the deprecated alias in OpenAPI 1.9.0, so it yields to the other name.
        session = top.get("session_properties", top.get("session", {}))
    return ReceivedBatch(events=events, session=session)


def parse_update(body: bytes) -> ReceivedUpdate:
    """Read a body of `PUT /events`: an event or session id, and what changes.

    A null object changes nothing, an empty `children_ids` neither (OpenAPI 1.9.0).

    Raises:
        RefusedError: with status 400, naming the first field that is missing or wrong.
    """
    fields = _decoded(body, dict[str, Any], "body")
    if "event_id" not in fields:
        raise _refused("event_id: required")
    _check_types(fields, _UPDATE_FIELDS, "")
    _check_not_empty(fields, "event_id", "")
    _check_children(fields, "")
    changes = {
        name: fields[name]
        for name in _UPDATE_FIELDS
        if name in fields and name != "event_id" and (fields[name] is not None or name == "error")
    }
    if changes.get("children_ids") == []:
        del changes["children_ids"]
    return ReceivedUpdate(event_id=fields["event_id"], changes=changes)


def _event(raw: bytes, path: str) -> ReceivedEvent:
    fields = _decoded(raw, Any, path)
    if (kind := _kind(fields)) != "object":
        raise _refused(f"{path}: expected object, got {kind}")
    if "event_type" in fields or "model_name" in fields:
        if not ("model_name" in fields or "event_name" in fields or "model" in fields):
            raise _refused(f"{path}.model_name: required (or event_name, or model)")
    else:
        for name in CLASSIC_FIELDS:
            if name not in fields:
                raise _refused(f"{path}.{name}: required")
    _check_types(fields, _EVENT_FIELDS, f"{path}.")
    for name in ("event_id", "session_id"):
        _check_not_empty(fields, name, f"{path}.")
    _check_children(fields, f"{path}.")
    if fields.get("event_type", "model") not in EVENT_TYPES:
        raise _refused(f"{path}.event_type: expected one of {', '.join(EVENT_TYPES)}")
    return ReceivedEvent(raw=raw, fields=fields)


def _check_types(fields: Mapping[str, Any], documented: Mapping[str, tuple[str, ...]], prefix: str) -> None:
    for name, kinds in documented.items():
        if name in fields and (kind := _kind(fields[name])) not in kinds:
            wanted = kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} or {kinds[-1]}"
            raise _refused(f"{prefix}{name}: expected {wanted}, got {kind}")


def _check_not_empty(fields: Mapping[str, Any], name: str, prefix: str) -> None:
    if fields.get(name) == "":
        raise _refused(f"{prefix}{name}: must not be empty")


def _check_children(fields: Mapping[str, Any], prefix: str) -> None:
    for at, child in enumerate(fields.get("children_ids", ())):
        if not isinstance(child, str):
            raise _refused(f"{prefix}children_ids[{at}]: expected string, got {_kind(child)}")


def _kind(value: object) -> str:
    """Name the JSON type of a decoded value. A boolean is not a number, though Python says so."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _decoded(data: bytes | Raw, kind: Any, path: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as wrong:
        # Only the type of the whole can be wrong here, or a number that no double holds.
        reason = str(wrong).split(" - at ")[0].replace("`", "")
        raise _refused(f"{path}: {reason[0].lower()}{reason[1:]}") from None
    except RecursionError:
        raise _refused(f"{path}: nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise _refused(f"{path}: not JSON: {wrong}") from None


def _refused(message: str) -> RefusedError:
    return RefusedError(400, message)
