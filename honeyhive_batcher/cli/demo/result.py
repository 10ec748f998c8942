"""What a demo ends with: does it add up, what arrived, and how it travelled."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Trigger

if TYPE_CHECKING:
    from honeyhive_batcher.collector import Collector, StoredRequest

_SIZES = ((0, 0, "end of a session"), (1, 1, "1"), (2, 9, "2 to 9"))

_TRIGGERS = {
    Trigger.FULL: "full: it had {max_events} events",
    Trigger.INTERVAL: "by time: its oldest event had waited {interval:g} s",
    Trigger.FLUSH: "flush at the end",
}

_QUERY = (
    "SELECT model, count(*) AS calls, round(avg(duration)) AS ms, round(sum(cost), 4) AS usd, "
    "count(error) AS errors FROM events GROUP BY model ORDER BY calls DESC"
)


class Arrived(Struct, frozen=True, kw_only=True):
    """What the collector has, held against what the batcher says is delivered."""

    events: int
    """Different events that it has."""
    duplicates: int
    """How many of its events are there once more."""
    endings: int
    """Sessions whose end it has."""
    missing: int
    """Delivered, says the batcher, but the collector does not have it."""


def arrived(hive: "Collector", delivered: Sequence[str], sessions: dict[str, dict[str, Any]]) -> Arrived:
    """Look for every delivered event, and for the end of every session, in the collector."""
    stored = {event.event_id for event in hive.events()}
    ended = {
        session.session_id
        for session in hive.sessions()
        if session.session_id in sessions
        and sessions[session.session_id].items() <= session.properties.items()
    }
    stats = hive.stats()
    return Arrived(
        events=stats.distinct_events,
        duplicates=stats.duplicates,
        endings=len(ended),
        missing=len(set(delivered) - stored - ended),
    )


def equations(statistics: Statistics) -> list[str]:
    """Return the two equations of the ledger with their numbers; "!=" where one does not hold."""
    refused, dropped = sum(statistics.refused.values()), sum(statistics.dropped.values())
    fates = {
        "delivered": statistics.delivered,
        "dropped": dropped,
        "unconfirmed": statistics.unconfirmed,
        "held": statistics.held,
    }
    return [
        _equation("offered", statistics.offered, {"accepted": statistics.accepted, "refused": refused}),
        _equation("accepted", statistics.accepted, fates),
    ]


def _equation(name: str, total: int, parts: dict[str, int]) -> str:
    sign = "=" if total == sum(parts.values()) else "!="
    return f"{name} {total:,} {sign} {' + '.join(f'{part} {count:,}' for part, count in parts.items())}"


def complaint(statistics: Statistics, found: Arrived) -> str | None:
    """Return a sentence about what went wrong, or None if every event offered is in the collector."""
    if any("!=" in equation for equation in equations(statistics)):
        return "the numbers do not add up: this is a bug of honeyhive_batcher"
    if found.missing:
        return f"{found.missing:,} events count as delivered, and the collector does not have them"
    losses = {f"refused ({reason})": count for reason, count in statistics.refused.items()}
    losses |= {f"dropped ({reason})": count for reason, count in statistics.dropped.items()}
    losses |= {"unconfirmed (sent, but no answer came)": statistics.unconfirmed, "held": statistics.held}
    named = ", ".join(f"{count:,} {name}" for name, count in losses.items() if count)
    return f"not everything was delivered: {named}; last error: {statistics.last_error}" if named else None


def verdict(statistics: Statistics, found: Arrived) -> str:
    """Return a sentence about what the collector has."""
    sentence = f"The collector has {found.events:,} events and the ends of {found.endings:,} sessions"
    if found.duplicates:
        return (
            f"{sentence}, and {found.duplicates:,} events once more: where an answer is lost, they are sent "
            "again (at least once)"
        )
    if statistics.delivered == found.events + found.endings > 0:
        return f"{sentence}: each of the {statistics.delivered:,} delivered, exactly once"
    return sentence


def sizes(requests: Sequence["StoredRequest"], max_events: int) -> list[tuple[str, ...]]:
    """Return the requests that the collector saw by how many events they held."""
    buckets = [
        *_SIZES,
        (10, max_events - 1, f"10 to {max_events - 1}"),
        (max_events, max_events, f"{max_events}"),
    ]
    rows: list[tuple[str, ...]] = []
    for least, most, name in buckets:
        of_size = [request for request in requests if least <= request.events <= most]
        taken = sum(request.status == 200 for request in of_size)
        if of_size:
            events = sum(request.events for request in of_size)
            rows.append((name, f"{len(of_size):,}", f"{events:,}", f"{taken:,}"))
    return rows


def triggers(statistics: Statistics, *, max_events: int, interval: float) -> list[tuple[str, ...]]:
    """Return the requests that the batcher sent by what caused them."""
    rows = {
        words.format(max_events=max_events, interval=interval): statistics.batches.get(trigger, 0)
        for trigger, words in _TRIGGERS.items()
    }
    rows["sent again"] = statistics.retries
    rows["part of a refused batch"] = (
        statistics.requests - statistics.retries - sum(statistics.batches.values())
    )
    return [(name, f"{count:,}") for name, count in rows.items() if count]


def queries(db: Path) -> list[str]:
    """Return commands that look into the database: for who has the program sqlite3, and who has not."""
    path = shlex.quote(str(db))
    code = f'import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute("{_QUERY}"), sep=chr(10))'
    return [
        f'sqlite3 -header -column {path} "{_QUERY}"',
        f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {path}",
    ]
