"""Events, sessions and requests in one SQLite file that a user can query."""

import sqlite3
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from honeyhive_batcher.collector.database import open_database
from honeyhive_batcher.collector.rows import Stats, StoredEvent, StoredRequest, StoredSession

_INSERT_EVENT: Final = (
    "INSERT INTO events (event_id, server_id, session_id, project, model, provider, event_name, source, "
    "duration, cost, error, received_at, request_id, event) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

# HoneyHive merges these and replaces every other field (OpenAPI 1.9.0, `PUT /v1/events/{event_id}`).
_MERGED: Final = ("metadata", "feedback", "metrics", "config", "user_properties")


class NewEvent(Struct, frozen=True, kw_only=True):
    """One event to create."""

    event_id: str
    server_id: str
    session_id: str | None
    fields: dict[str, Any]
    raw: bytes


class Store:
    """The collector's memory. Every method may be called from any thread.

    Invariant: one connection, touched only while `_lock` is held; `:memory:` knows no second one.

    Raises:
        ConfigError: the file cannot be opened, is no SQLite file, or is one of something else.
    """

    def __init__(self, db: str | Path) -> None:
        self._lock = threading.Lock()
        self._connection = open_database(db)

    @contextmanager
    def _writing(self) -> Generator[sqlite3.Connection, None, None]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file; every later call raises sqlite3.ProgrammingError."""
        with self._lock:
            self._connection.close()

    def open_request(self, method: str, path: str, received_at: float) -> int:
        """Record that a request came, and return its id."""
        with self._writing() as db:
            row = db.execute(
                "INSERT INTO requests (received_at, method, path) VALUES (?, ?, ?)",
                (received_at, method, path),
            ).lastrowid
        assert row is not None
        return row

    def close_request(self, request: StoredRequest) -> None:
        """Record what became of a request."""
        with self._writing() as db:
            db.execute(
                "UPDATE requests SET status = ?, events = ?, bytes = ?, encoding = ?, latency = ?, "
                "fault = ?, message = ? WHERE id = ?",
                (
                    request.status,
                    request.events,
                    request.bytes,
                    request.encoding,
                    request.latency,
                    request.fault,
                    request.message,
                    request.id,
                ),
            )

    def create(
        self,
        events: Sequence[NewEvent],
        *,
        session: tuple[str, dict[str, Any]] | None,
        request_id: int,
        now: float,
    ) -> None:
        """Create events, and the session they share (its id and properties) or what is new about it."""
        with self._writing() as db:
            if session is not None:
                self._merge_session(db, *session, now)
            db.executemany(_INSERT_EVENT, [_event_row(event, request_id, now) for event in events])

    def _merge_session(
        self, db: sqlite3.Connection, session_id: str, properties: dict[str, Any], now: float
    ) -> None:
        known = db.execute("SELECT properties FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
        if known is not None:
            properties = _merged(msgspec.json.decode(known[0]), properties)
        db.execute(
            "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, 1, 0) ON CONFLICT (session_id) DO UPDATE SET "
            "session_name = excluded.session_name, source = excluded.source, "
            "properties = excluded.properties, updated_at = excluded.updated_at, batches = batches + 1",
            (
                session_id,
                properties.get("session_name"),
                properties.get("source"),
                _json_text(properties),
                now,
                now,
            ),
        )

    def update(self, event_id: str, changes: dict[str, Any], now: float) -> bool:
        """Merge changes into the session and into every event of this id; say whether there was one."""
        with self._writing() as db:
            session = db.execute(
                "SELECT properties FROM sessions WHERE session_id = ?", (event_id,)
            ).fetchone()
            if session is not None:
                db.execute(
                    "UPDATE sessions SET properties = ?, updated_at = ?, updates = updates + 1 "
                    "WHERE session_id = ?",
                    (_json_text(_merged(msgspec.json.decode(session[0]), changes)), now, event_id),
                )
            events = db.execute(
                "SELECT id, event FROM events WHERE event_id = ? OR server_id = ?", (event_id, event_id)
            ).fetchall()
            for row, event in events:
                fields = _merged(msgspec.json.decode(event), changes)
                db.execute(
                    "UPDATE events SET event = ?, duration = ?, error = ?, updates = updates + 1 "
                    "WHERE id = ?",
                    (_json_text(fields), _storable(fields.get("duration")), fields.get("error"), row),
                )
            return session is not None or bool(events)

    def clear(self) -> None:
        """Forget all events, sessions and requests."""
        with self._writing() as db:
            for table in ("events", "sessions", "requests"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608  names from the line above

    def events(
        self, *, limit: int = -1, offset: int = 0, where: dict[str, str] | None = None
    ) -> list[StoredEvent]:
        """List events, newest last: the newest `limit` after leaving out the newest `offset`.

        Args:
            limit: how many; -1 for all.
            offset: how many of the newest to leave out.
            where: columns of `events`, and what they must equal.
        """
        rows = self._newest("SELECT * FROM events", limit, offset, where)
        return [StoredEvent(raw=row.pop("event").encode(), **row) for row in rows]

    def sessions(self, *, limit: int = -1, offset: int = 0) -> list[StoredSession]:
        """List sessions by creation, newest last; `limit` and `offset` as for events."""
        rows = self._newest("SELECT * FROM sessions", limit, offset)
        return [
            StoredSession(**{**row, "properties": msgspec.json.decode(row["properties"])}) for row in rows
        ]

    def requests(self, *, limit: int = -1, offset: int = 0) -> list[StoredRequest]:
        """List requests by arrival, newest last; `limit` and `offset` as for events."""
        return [StoredRequest(**row) for row in self._newest("SELECT * FROM requests", limit, offset)]

    def _newest(
        self, select: str, limit: int, offset: int, where: dict[str, str] | None = None
    ) -> list[dict[str, Any]]:
        conditions = " AND ".join(f"{column} = ?" for column in where or ()) or "1"
        with self._lock:
            cursor = self._connection.execute(
                f"{select} WHERE {conditions} ORDER BY rowid DESC LIMIT ? OFFSET ?",
                (*(where or {}).values(), limit, offset),
            )
            names = [column[0] for column in cursor.description]
            rows = cursor.fetchall()
        return [dict(zip(names, row, strict=True)) for row in reversed(rows)]

    def stats(self) -> Stats:
        """Count what is stored."""
        with self._lock:
            events, distinct = self._connection.execute(
                "SELECT count(*), count(DISTINCT event_id) FROM events"
            ).fetchone()
            (sessions,) = self._connection.execute("SELECT count(*) FROM sessions").fetchone()
            by_status = self._connection.execute(
                "SELECT coalesce(status, 'none'), count(*), sum(bytes) FROM requests "
                "GROUP BY status ORDER BY status"
            ).fetchall()
        return Stats(
            events=events,
            distinct_events=distinct,
            duplicates=events - distinct,
            sessions=sessions,
            requests=sum(count for _, count, _ in by_status),
            requests_by_status={str(status): count for status, count, _ in by_status},
            bytes=sum(size for _, _, size in by_status),
        )


def _event_row(event: NewEvent, request_id: int, now: float) -> tuple[Any, ...]:
    fields = event.fields
    return (
        event.event_id,
        event.server_id,
        event.session_id,
        fields.get("project"),
        fields.get("model", fields.get("model_name")),
        fields.get("provider"),
        fields.get("event_name"),
        fields.get("source"),
        _storable(fields.get("duration")),
        _storable(fields.get("cost")),
        fields.get("error"),
        now,
        request_id,
        event.raw.decode(),  # TEXT, because SQLite's JSON functions do not read a BLOB
    )


def _storable(number: float | str | None) -> float | str | None:
    """JSON knows integers that SQLite has no room for; a double comes closest (HoneyHive is JavaScript)."""
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        try:
            return float(number)
        except OverflowError:
            return str(number)
    return number


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    result = {**old, **new}
    for name in _MERGED:
        if isinstance(old.get(name), dict) and isinstance(new.get(name), dict):
            result[name] = {**old[name], **new[name]}
    return result


def _json_text(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
