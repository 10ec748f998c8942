"""Everything known about the endpoint's bytes: batch to request, response body to facts.

The route is HoneyHive's `POST /events/model/batch`. It is deprecated in favour of
`POST /v1/events/batch` but serves traffic (OpenAPI 1.9.0); another route would be a second file with
the same functions.
"""

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from msgspec import Struct

from honeyhive_batcher.core.fragment import SESSIONLESS, GroupKey
from honeyhive_batcher.core.model import Batch
from honeyhive_batcher.core.request import Request

BATCH_PATH = "/events/model/batch"
UPDATE_PATH = "/events"
"""`PUT` here with the session's id as `event_id` updates the session's event."""

MAX_RETRY_AFTER = 3600.0
"""Seconds: what a server asks for beyond an hour is taken for an hour."""

_OPENING = b'{"model_events":['
_SESSIONLESS_ENDING = b"]}"
_SESSION_MIDDLE = b'],"is_single_session":true,"session_properties":'

# What is cut off cannot be counted: an id takes 39 bytes, but an error message may quote its event.
_REPLY_BASE = 256 * 1024
_REPLY_PER_EVENT = 2048


class ReplyFacts(Struct, frozen=True, kw_only=True):
    """What a response body says about the events of its batch."""

    event_ids: tuple[str, ...] | None = None
    """Ids of the events that were created; None when the body does not say."""
    errors: int = 0
    """How many failure messages came along. They carry neither index nor id."""
    success: bool = True


def overhead(key: GroupKey) -> int:
    """Return the bytes of a body of this group without its events and the commas between them."""
    if key is SESSIONLESS:
        return len(_OPENING) + len(_SESSIONLESS_ENDING)
    return len(_OPENING) + len(_SESSION_MIDDLE) + len(key.properties) + 1


def build_request(batch: Batch) -> Request:
    """Make a request of the fragments of a batch; nothing is encoded again.

    A session's closing that rides along replaces the properties; one that is alone becomes an update.
    """
    max_reply_bytes = _REPLY_BASE + _REPLY_PER_EVENT * len(batch.fragments)
    closing = batch.closing
    events = batch.events
    if not events:
        parts = (batch.fragments[0].data,)
        return Request(method="PUT", path=UPDATE_PATH, parts=parts, max_reply_bytes=max_reply_bytes)
    ending = _SESSIONLESS_ENDING
    if batch.key is not SESSIONLESS:
        ending = b"%b%b}" % (_SESSION_MIDDLE, closing.closing if closing else batch.key.properties)
    return Request(
        method="POST",
        path=BATCH_PATH,
        opening=_OPENING,
        parts=tuple([fragment.data for fragment in events]),
        ending=ending,
        max_reply_bytes=max_reply_bytes,
    )


def body_size(batch: Batch) -> int:
    """Return the length of the body that `build_request` makes of a batch."""
    closing = batch.closing
    if not batch.events:
        return len(batch.fragments[0].data)
    events = batch.events
    size = overhead(batch.key) - 1 + sum([len(fragment.data) for fragment in events]) + len(events)
    return size + len(closing.closing) - len(batch.key.properties) if closing else size


def read_reply(body: bytes) -> ReplyFacts:
    """Return the facts in a response body, whatever it holds: no shape of it is relied upon."""
    try:
        fields: Any = msgspec.json.decode(body)
    except (
        msgspec.MsgspecError,
        ValueError,
        RecursionError,
    ):  # HTML from a load balancer, a truncated body, nothing at all
        return ReplyFacts()
    if not isinstance(fields, dict):
        return ReplyFacts()
    event_ids = fields.get("event_ids")
    errors = fields.get("errors")
    return ReplyFacts(
        event_ids=_texts(event_ids) if isinstance(event_ids, list) else None,
        errors=len(errors) if isinstance(errors, list) else 0,
        success=fields.get("success") is not False,
    )


def _texts(names: list[Any]) -> tuple[str, ...]:
    if {str}.issuperset(map(type, names)):
        return tuple(names)
    return tuple(str(name) for name in names if isinstance(name, str | int))


def retry_after(value: str | None, *, wall: float) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, or None if it asks for nothing.

    Both forms of RFC 9110 are understood: seconds, and an HTTP date, held against `wall` (Unix
    seconds). A date that has passed asks for 0; anything malformed asks for nothing.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(text)
        # One of RFC 9110's three forms names no zone; it is UTC all the same.
        at = date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(at - wall, 0.0), MAX_RETRY_AFTER)
