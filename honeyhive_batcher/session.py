"""A HoneyHive session: what is said once about a group of events, and how it ended."""

import asyncio
import contextvars
import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, final

import msgspec
from msgspec import UNSET, Struct

from honeyhive_batcher.config import Defaults
from honeyhive_batcher.content import without_content
from honeyhive_batcher.core.fields import struct_fields
from honeyhive_batcher.core.fragment import Closing, GroupKey, Ids
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import Clock
from honeyhive_batcher.core.repair import encode_anyway, mend
from honeyhive_batcher.events import SessionProperties
from honeyhive_batcher.plain_json import plain_json
from honeyhive_batcher.runtime.reporter import say

current: contextvars.ContextVar[tuple["Session", ...]] = contextvars.ContextVar(
    "honeyhive_batcher_sessions", default=()
)
"""The sessions that are bound here, of whichever batchers, the innermost last."""

_CLOSING_FIELDS = ("outputs", "metrics", "feedback", "error", "metadata", "user_properties")
"""What may be set until the session ends."""

_NAMES = ("event_id", "session_id")
"""What tells which session it is: nobody changes that."""

_MAX_OUTPUTS = 8 * 1024 * 1024  # bytes looked at to see whether it is an object; no body can be larger


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

    def __init__(self, owner: "Sessions", opening: Mapping[str, Any]) -> None:
        self.session_id: str = opening["session_id"]
        self.outputs: Any = opening.get("outputs")
        self.metrics: Any = opening.get("metrics")
        self.feedback: Any = opening.get("feedback")
        self.error: str | None = opening.get("error")
        self.metadata: Any = opening.get("metadata")
        self.user_properties: Any = opening.get("user_properties")
        self._owner = owner
        self.key = GroupKey(session_id=self.session_id, properties=owner.encode(owner.shown(opening)))
        """The group of its events; another one after `close`, with the final properties."""
        self.taken_by: Intake | None = None
        """The queue that took an event of this session; that of a parent is not its forked child's."""
        self._is_closed = False

    @property
    def owner(self) -> "Sessions":
        """The sessions, of one batcher, that this is one of."""
        return self._owner

    @property
    def has_events(self) -> bool:
        """Whether an event of this session was accepted, in this process."""
        return self.taken_by is self._owner.intake

    def __enter__(self) -> Self:
        current.set((*current.get(), self))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Not by a token: sessions may end in another order than they began, as generators do, or in
        # another context, and then a token would bind again what has ended.
        stack = list(current.get())
        for place in range(len(stack) - 1, -1, -1):
            if stack[place] is self:
                del stack[place]
                current.set(tuple(stack))
                break
        self.close()

    def close(self) -> None:
        """End the session: send on what was set since it began. Further calls do nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        ending = {name: value for name in _CLOSING_FIELDS if (value := getattr(self, name)) is not None}
        closing = self._owner.shown(ending)
        if "outputs" in closing:
            closing["outputs"] = _as_object(closing["outputs"])
        # From the bytes of the beginning: what the application did to its own objects since is not ours.
        opening = msgspec.json.decode(self.key.properties, type=dict[str, msgspec.Raw])
        properties = self._owner.encode({**opening, **closing})
        if properties == self.key.properties:
            return
        key = self.key
        self.key = GroupKey(session_id=self.session_id, properties=properties)
        if self.has_events:
            body = self._owner.encode({"event_id": self.session_id, **closing})
            self._owner.end(Closing(body, self.session_id, key, closing=properties))

    def __repr__(self) -> str:
        return f"<Session {self.session_id} {'closed' if self._is_closed else 'open'}>"


@final
class Sessions:
    """The sessions of one batcher: makes them, encodes what is said about them, and queues their ends."""

    def __init__(
        self,
        intake: Intake,
        defaults: Defaults,
        *,
        max_bytes: int,
        ids: Ids,
        clock: Clock,
        before_session: Callable[[dict[str, Any]], Any] | None = None,
        captures_content: bool = True,
    ) -> None:
        self.intake = intake
        """The queue of this process."""
        self._clock = clock
        self._max_bytes = max_bytes
        self._ids = ids
        self._before_session = before_session
        self._captures_content = captures_content
        named = {"session_name": defaults.session_name, "source": defaults.source}
        self._defaults = {name: value for name, value in named.items() if value is not None}

    def make(
        self, properties: SessionProperties | Mapping[str, Any] | None, more: Mapping[str, Any]
    ) -> Session:
        """Return a session with these properties. Never raises: what is no mapping is left out."""
        try:
            given = struct_fields(properties) if isinstance(properties, Struct) else dict(properties or {})
        except Exception:  # whatever it is: a session without it is better than none
            given = {}
            self.intake.ledger.repaired += 1
        fields = {**self._defaults, **given, **more}
        fields["session_id"] = _usable_id(fields.get("session_id")) or self._ids.next().decode()
        return Session(self, fields)

    def shown(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of a session's fields may leave. Of what could not be looked at only the id does."""
        if not fields or (self._captures_content and self._before_session is None):
            return dict(fields)
        named = {name: fields[name] for name in _NAMES if name in fields}
        try:
            given: Any = dict(fields)
            if self._before_session is not None:
                given = self._before_session(given) or {}
                given = struct_fields(given) if isinstance(given, Struct) else dict(given)
            if not self._captures_content:
                given, repairs = plain_json(given)
                given = without_content(given)
                self.intake.ledger.repaired += repairs
        except (Exception, asyncio.CancelledError):  # as with `before_send`: it may hold what must not leave
            self.intake.ledger.callback_errors += 1
            given = {}
        return {name: value for name, value in given.items() if name not in _NAMES} | named

    def encode(self, fields: Mapping[str, Any]) -> bytes:
        """Return the JSON of a session's fields; of too large ones only what names the session is kept."""
        try:
            data, repairs = encode_anyway(fields, self._max_bytes)
        except (Exception, asyncio.CancelledError):  # whatever its values raise when they are read
            data, repairs = None, 0
        if data is None:
            names = {name: fields[name] for name in _NAMES if name in fields}
            data, repairs = encode_anyway(names, self._max_bytes)[0], 1
            say(
                logging.WARNING,
                "the properties of a session are larger than %d bytes and were left out",
                self._max_bytes,
                kind="properties_too_large",
                limit=self._max_bytes,
            )
        self.intake.ledger.repaired += repairs
        encoded = bytes(data or b"{}")
        return mend(encoded) or encoded  # looked for at once, unlike in events: sessions are few

    def end(self, closing: Closing) -> None:
        """Take the end of a session into the queue."""
        self.intake.admit(closing, closing.key, self._clock())


def bound_session(owner: Sessions, event: object) -> Session | None:
    """Return the innermost session of `owner` that is bound here, unless the event names one itself."""
    bound = current.get()
    if not bound:
        return None  # the usual case, kept short
    session = next((session for session in reversed(bound) if session.owner is owner), None)
    if session is None:
        return None
    try:
        own = event.get("session_id") if isinstance(event, Mapping) else getattr(event, "session_id", UNSET)
    except Exception:  # an event that cannot be asked names none
        own = None
    return session if own is None or own is UNSET else None


def _usable_id(value: object) -> str | None:
    """Return an id that the application gave, or None if there is none in it."""
    try:
        return str(value) if value else None
    except Exception:  # whatever its own methods raise
        return None


def _as_object(outputs: Any) -> Any:
    try:
        data, _ = encode_anyway(outputs, _MAX_OUTPUTS)
    except asyncio.CancelledError:  # of its own making: nothing is awaited here
        return outputs
    return outputs if data is None or data.startswith(b"{") else {"output": outputs}
