"""What the collector has stored, row by row, as its readers see it."""

from typing import Any

import msgspec
from msgspec import Struct


class StoredEvent(Struct, frozen=True, kw_only=True):
    """One creation of an event. An event created twice is two rows: that is how duplicates show."""

    id: int
    """Position in the order of creation."""
    event_id: str
    """The event's own id, or the server's if it came without."""
    server_id: str
    """The id that was answered; differs from `event_id` only under the fault `no_echo`."""
    session_id: str | None
    """The single session of its request, else the event's own `session_id`."""
    project: str | None
    model: str | None
    """`model`, else `model_name`."""
    provider: str | None
    event_name: str | None
    source: str | None
    duration: float | None
    """Milliseconds."""
    cost: float | str | None
    error: str | None
    received_at: float
    """Unix seconds."""
    request_id: int
    """`id` of the request that brought it."""
    updates: int
    """How many times `PUT /events` changed it."""
    raw: bytes
    """The event's JSON as it came, byte for byte; with `event_id` in front if the server made it."""

    @property
    def event(self) -> dict[str, Any]:
        """The event, decoded anew at each call."""
        return msgspec.json.decode(self.raw, type=dict[str, Any])


class StoredSession(Struct, frozen=True, kw_only=True):
    """One session."""

    session_id: str
    session_name: str | None
    source: str | None
    properties: dict[str, Any]
    """Everything said about the session, all batches and updates merged."""
    created_at: float
    """Unix seconds."""
    updated_at: float
    """Unix seconds; `created_at` until a batch or an update follows."""
    batches: int
    """How many batches named it."""
    updates: int
    """How many times `PUT /events` changed it."""


class StoredRequest(Struct, frozen=True, kw_only=True):
    """One request, whatever became of it."""

    id: int
    """Position in the order of arrival."""
    received_at: float
    """Unix seconds."""
    method: str
    path: str
    status: int | None
    """None: it was not answered, or not yet."""
    events: int
    """How many events it asked to create; 0 if it could not be read."""
    bytes: int
    """Body bytes read from the wire, before decompression."""
    encoding: str | None
    """Content-Encoding."""
    latency: float | None
    """Seconds from the head of the request to its answer or its end; None while it lasts."""
    fault: str | None
    """The misbehaviour that befell it."""
    message: str | None
    """Why it was refused, as the client was told."""


class Stats(Struct, frozen=True, kw_only=True):
    """What is stored, in numbers."""

    events: int
    """Events created, duplicates included."""
    distinct_events: int
    """Different event ids among them."""
    duplicates: int
    """`events` less `distinct_events`."""
    sessions: int
    requests: int
    requests_by_status: dict[str, int]
    """Requests by status; "none" for those without an answer."""
    bytes: int
    """Body bytes read from the wire by all requests."""
