"""A HoneyHive session: what is said once about a group of events, and how it ended."""

import contextvars
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, final

import msgspec
from msgspec import UNSET

from honeyhive_batcher.core.encoding import Encoded
from honeyhive_batcher.core.model import GroupKey
from honeyhive_batcher.core.repair import encode_anyway

current: contextvars.ContextVar[tuple["Session", ...]] = contextvars.ContextVar(
    "honeyhive_batcher_sessions", default=()
)
"""The sessions that are bound here, of whichever batchers, the innermost last."""

_CLOSING_FIELDS = ("outputs", "metrics", "feedback", "error", "metadata", "user_properties")
"""What may be set until the session ends."""

_MAX_OUTPUTS = 8 * 1024 * 1024  # bytes looked at to see whether it is an object; no body can be larger


class SessionOwner(Protocol):
    """What a session needs of its batcher."""

    def encode_session(self, fields: Mapping[str, Any]) -> bytes:
        """Return the JSON of an object, cut down to what fits if it is too large."""

    def close_session(self, key: GroupKey, update: Encoded, properties: bytes) -> object:
        """Take the end of a session into the queue."""


@final
class Session:
    """Events pushed while it is bound, or with `session=`, share one HoneyHive session.

    Made by `Batcher.session`. As a context manager it is bound by contextvar: tasks and worker threads
    (`asyncio.to_thread`, `anyio.to_thread`) started inside see it too. Never raises.

    Until the end `outputs`, `metrics`, `feedback`, `error`, `metadata` and `user_properties` may be set.
    They travel with the session's last batch; if that has already left, they are sent as an update of the
    session's event, which counts as one event. HoneyHive's update (`PUT /events`, OpenAPI 1.9.0) takes
    an object or null as `outputs` (anything else is sent as `{"output": ...}`) and documents no `error`.
    A session without events is never sent.
    """

    def __init__(self, owner: SessionOwner, properties: Mapping[str, Any], new_id: Callable[[], str]) -> None:
        opening = dict(properties)
        if not isinstance(opening.get("session_id"), str) or not opening["session_id"]:
            opening["session_id"] = str(opening.get("session_id") or new_id())
        self.session_id: str = opening["session_id"]
        self.outputs: Any = opening.get("outputs")
        self.metrics: Any = opening.get("metrics")
        self.feedback: Any = opening.get("feedback")
        self.error: str | None = opening.get("error")
        self.metadata: Any = opening.get("metadata")
        self.user_properties: Any = opening.get("user_properties")
        self._owner = owner
        self.key = GroupKey(session_id=self.session_id, properties=owner.encode_session(opening))
        """The group of its events; another one after `close`, with the final properties."""
        self.has_events = False
        """Whether an event of this session was accepted."""
        self._is_closed = False
        self._tokens: list[contextvars.Token[tuple[Session, ...]]] = []

    @property
    def owner(self) -> SessionOwner:
        """The batcher that this session belongs to."""
        return self._owner

    def __enter__(self) -> Self:
        self._tokens.append(current.set((*current.get(), self)))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            current.reset(self._tokens.pop())
        except ValueError:
            # A generator may be closed in another context than it was begun in.
            current.set(tuple(session for session in current.get() if session is not self))
        self.close()

    def close(self) -> None:
        """End the session: send on what was set since it began. Further calls do nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        closing = {name: value for name in _CLOSING_FIELDS if (value := getattr(self, name)) is not None}
        if "outputs" in closing:
            closing["outputs"] = _as_object(closing["outputs"])
        # From the bytes of the beginning: what the application did to its own objects since is not ours.
        opening = msgspec.json.decode(self.key.properties, type=dict[str, msgspec.Raw])
        properties = self._owner.encode_session({**opening, **closing})
        if properties == self.key.properties:
            return
        key = self.key
        self.key = GroupKey(session_id=self.session_id, properties=properties)
        if self.has_events:
            body = self._owner.encode_session({"event_id": self.session_id, **closing})
            self._owner.close_session(key, Encoded(body, self.session_id, 0), properties)

    def __repr__(self) -> str:
        return f"<Session {self.session_id} {'closed' if self._is_closed else 'open'}>"


def bound_session(owner: SessionOwner, event: object) -> Session | None:
    """Return the innermost session of `owner` that is bound here, unless the event names one itself."""
    session = next((session for session in reversed(current.get()) if session.owner is owner), None)
    if session is None:
        return None
    own = event.get("session_id") if isinstance(event, Mapping) else getattr(event, "session_id", UNSET)
    return session if own is None or own is UNSET else None


def _as_object(outputs: Any) -> Any:
    data, _ = encode_anyway(outputs, _MAX_OUTPUTS)
    return outputs if data is None or data.startswith(b"{") else {"output": outputs}
