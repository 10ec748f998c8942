"""The SQLite file of the collector: its tables, and opening it."""

import sqlite3
from pathlib import Path
from typing import Final

from honeyhive_batcher.errors import ConfigError

_VERSION: Final = 1
"""Version of the tables below, kept in the file's `user_version`."""

_SCHEMA: Final = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,  -- not unique: HoneyHive does not enforce it, and duplicates must show
    server_id TEXT NOT NULL,
    session_id TEXT,
    project TEXT,
    model TEXT,
    provider TEXT,
    event_name TEXT,
    source TEXT,
    duration REAL,           -- milliseconds
    cost NUMERIC,
    error TEXT,
    received_at REAL NOT NULL,  -- Unix seconds
    request_id INTEGER NOT NULL,
    updates INTEGER NOT NULL DEFAULT 0,
    event TEXT NOT NULL      -- JSON, as it came
);
CREATE INDEX events_by_event_id ON events (event_id);
CREATE INDEX events_by_server_id ON events (server_id);
CREATE INDEX events_by_session_id ON events (session_id);
CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,
    session_name TEXT,
    source TEXT,
    properties TEXT NOT NULL,  -- JSON
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    batches INTEGER NOT NULL,
    updates INTEGER NOT NULL
);
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    received_at REAL NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    status INTEGER,            -- NULL: no answer, or not yet
    events INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    encoding TEXT,
    latency REAL,              -- seconds
    fault TEXT,
    message TEXT
);
"""


def open_database(db: str | Path) -> sqlite3.Connection:
    """Open a file, or `:memory:`, and make the tables if it is new.

    The connection may be used from any thread, by one at a time, and opens no transaction by itself.

    Raises:
        ConfigError: the file cannot be opened, is no SQLite file, or holds something else.
    """
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(str(db), isolation_level=None, check_same_thread=False)
        _prepare(connection)
    except (sqlite3.Error, ConfigError) as wrong:
        if connection is not None:
            connection.close()
        raise ConfigError(f"db: cannot use {str(db)!r}: {wrong}") from None
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and version != _VERSION:
        raise ConfigError("it holds something else, or comes from another version of the collector")
    # A reader with the sqlite3 shell does not stop the collector, nor the other way round.
    connection.execute("PRAGMA journal_mode = WAL")
    # Losing the last moments in a power cut is no loss to a development tool; a disk flush per request
    # would be one to the program being developed. A crash of the collector itself loses nothing.
    connection.execute("PRAGMA synchronous = OFF")
    if not tables:
        connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
