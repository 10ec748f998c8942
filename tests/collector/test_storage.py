"""What is stored, and that a user can query it."""

import json
import math
import sqlite3
import threading
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from honeyhive_batcher.collector.store import Store
from honeyhive_batcher.errors import ConfigError
from honeyhive_batcher.testing import Collector, Faults, StoredEvent, collector

Call = Callable[..., Awaitable[tuple[int, Any]]]
Make = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.anyio


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_an_event_without_an_id_gets_a_uuid_in_front_of_what_came(
    post_bytes: Call, hive: Collector, event: Make
) -> None:
    raw = json.dumps(event(), indent=3).encode()
    _, answer = await post_bytes(b'{"model_events": [ ' + raw + b" ]}")
    (stored,) = hive.events()
    assert answer["event_ids"] == [stored.event_id]
    assert str(uuid.UUID(stored.event_id)) == stored.event_id
    assert stored.raw == b'{"event_id":"' + stored.event_id.encode() + b'",' + raw[1:]


async def test_an_event_with_an_id_is_kept_byte_for_byte(post_bytes: Call, hive: Collector) -> None:
    raw = b'{ "model_name" : "\\u00e9\xc3\xa9",\n "event_id":"mine", "cost":1.50e0, "cost":2 }'
    _, answer = await post_bytes(b'{"model_events":[' + raw + b"]}")
    assert answer == {"event_ids": ["mine"], "success": True}
    assert hive.events()[0].raw == raw


async def test_ids_are_answered_in_the_order_of_the_request(post: Call, event: Make) -> None:
    ids = [f"id-{number}" for number in range(50)]
    _, answer = await post(*(event(event_id=each) for each in ids))
    assert answer["event_ids"] == ids


async def test_an_event_sent_twice_is_two_rows_and_counts_as_a_duplicate(
    post: Call, hive: Collector, event: Make
) -> None:
    await post(event(event_id="same"), event(event_id="other"))
    await post(event(event_id="same"))
    assert [stored.event_id for stored in hive.events()] == ["same", "other", "same"]
    assert [stored.request_id for stored in hive.events()] == [1, 1, 2]
    stats = hive.stats()
    assert (stats.events, stats.distinct_events, stats.duplicates) == (3, 2, 1)


async def test_columns_hold_what_the_event_says(post: Call, hive: Collector, event: Make) -> None:
    await post(event(event_name="n", source="s", cost=0.5, error="e", session_id="own"))
    (stored,) = hive.events()
    assert (stored.project, stored.model, stored.provider) == ("shop", "gpt-4o", "openai")
    assert (stored.event_name, stored.source, stored.cost, stored.error) == ("n", "s", 0.5, "e")
    assert (stored.duration, stored.session_id, stored.updates) == (42.0, "own", 0)


async def test_the_newer_name_of_the_model_stands_in_the_model_column(post: Call, hive: Collector) -> None:
    await post({"model_name": "new"}, {"model_name": "new", "model": "classic"})
    assert [stored.model for stored in hive.events()] == ["new", "classic"]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("0.25", 0.25),
        ("a lot", "a lot"),
        (None, None),
        (2**63 - 1, 2**63 - 1),
        (2**63, 2.0**63),
        (-(10**30), -1e30),
    ],
)
async def test_any_cost_that_the_contract_allows_fits_into_its_column(
    post: Call, hive: Collector, event: Make, given: Any, stored: Any
) -> None:
    status, _ = await post(event(cost=given))
    assert status == 200
    assert hive.events()[0].cost == stored
    assert hive.events()[0].event["cost"] == given


async def test_an_integer_that_no_double_holds_is_kept_all_the_same(
    post: Call, hive: Collector, event: Make
) -> None:
    huge = 10**400
    await post(event(cost=huge))
    # SQLite reads the digits as a number, and this one is beyond its numbers.
    assert hive.events()[0].cost == math.inf
    assert hive.events()[0].raw.count(b"0") > 400


async def test_a_single_session_links_its_events_without_changing_them(
    post: Call, hive: Collector, event: Make
) -> None:
    properties = {"session_id": "s1", "session_name": "Chat", "source": "test", "metadata": {"a": 1}}
    await post(
        event(event_id="e1"),
        event(event_id="e2", session_id="own"),
        is_single_session=True,
        session_properties=properties,
    )
    assert [stored.session_id for stored in hive.events()] == ["s1", "s1"]
    assert hive.events()[0].event == event(event_id="e1")
    assert hive.events()[1].event["session_id"] == "own"
    (session,) = hive.sessions()
    assert (session.session_id, session.session_name, session.source) == ("s1", "Chat", "test")
    assert session.properties == properties
    assert (session.batches, session.updates) == (1, 0)
    assert session.created_at == session.updated_at == hive.requests()[0].received_at


async def test_a_session_without_an_id_gets_one(post: Call, hive: Collector, event: Make) -> None:
    await post(event(), event(), single_session=True)
    (session,) = hive.sessions()
    assert str(uuid.UUID(session.session_id)) == session.session_id
    assert {stored.session_id for stored in hive.events()} == {session.session_id}
    assert session.properties == {}


async def test_the_name_of_the_session_member_that_is_not_deprecated_wins(
    post: Call, hive: Collector, event: Make
) -> None:
    await post(
        event(), single_session=True, session={"session_id": "old"}, session_properties={"session_id": "new"}
    )
    await post(event(), single_session=True, session={"session_id": "alone"})
    assert [session.session_id for session in hive.sessions()] == ["new", "alone"]


async def test_properties_alone_make_no_session(post: Call, hive: Collector, event: Make) -> None:
    """Documented: "Default is false. If true, all events will be associated with the same session"."""
    await post(event(), session_properties={"session_id": "s"})
    await post(event(), is_single_session=False, session_properties={"session_id": "s"})
    assert hive.sessions() == []
    assert [stored.session_id for stored in hive.events()] == [None, None]


async def test_a_second_batch_of_a_session_merges_its_properties(
    post: Call, hive: Collector, event: Make
) -> None:
    first = {
        "session_id": "s",
        "metadata": {"a": 1, "b": 1},
        "inputs": {"x": 1},
        "session_name": "One",
        "source": "t",
    }
    second = {
        "session_id": "s",
        "metadata": {"b": 2},
        "inputs": {"y": 2},
        "session_name": "Two",
        "config": {"c": 3},
    }
    await post(event(), is_single_session=True, session_properties=first)
    await post(event(), is_single_session=True, session_properties=second)
    (session,) = hive.sessions()
    assert session.properties == {
        "session_id": "s",
        "session_name": "Two",
        "source": "t",
        "metadata": {"a": 1, "b": 2},
        "inputs": {"y": 2},
        "config": {"c": 3},
    }
    assert (session.session_name, session.source, session.batches) == ("Two", "t", 2)
    assert session.updated_at > session.created_at


async def test_an_update_merges_into_the_session(post: Call, put: Call, hive: Collector, event: Make) -> None:
    properties = {"session_id": "s", "metadata": {"a": 1}, "outputs": {"old": 1}, "error": "broken"}
    await post(event(), is_single_session=True, session_properties=properties)
    status, answer = await put(
        event_id="s",
        metadata={"b": 2},
        feedback={"rating": 5},
        metrics=None,
        outputs={"new": 1},
        error=None,
        duration=1200,
        children_ids=[],
        anything="else",
    )
    assert (status, answer) == (200, {"success": True})
    (session,) = hive.sessions()
    assert session.properties == {
        "session_id": "s",
        "metadata": {"a": 1, "b": 2},
        "feedback": {"rating": 5},
        "outputs": {"new": 1},
        "error": None,
        "duration": 1200,
    }
    assert (session.batches, session.updates) == (1, 1)


async def test_null_outputs_keep_the_ones_there_are(
    post: Call, put: Call, hive: Collector, event: Make
) -> None:
    await post(
        event(), is_single_session=True, session_properties={"session_id": "s", "outputs": {"kept": 1}}
    )
    await put(event_id="s", outputs=None)
    assert hive.sessions()[0].properties["outputs"] == {"kept": 1}


async def test_an_update_of_an_event_changes_it_and_its_columns(
    post: Call, put: Call, hive: Collector, event: Make
) -> None:
    await post(event(event_id="e", metadata={"a": 1}), event(event_id="other"))
    status, _ = await put(event_id="e", metadata={"b": 2}, error="late", duration=7, children_ids=["c"])
    assert status == 200
    changed, other = hive.events()
    assert changed.event == event(
        event_id="e", metadata={"a": 1, "b": 2}, error="late", duration=7, children_ids=["c"]
    )
    assert (changed.duration, changed.error, changed.updates) == (7.0, "late", 1)
    assert (other.event, other.updates) == (event(event_id="other"), 0)


async def test_an_update_of_nothing_known_is_refused(post: Call, put: Call, event: Make) -> None:
    """A session id that events merely carry is no session: HoneyHive answers 400 without a session root."""
    await post(event(session_id="bare"))
    for event_id in ("unknown", "bare"):
        status, answer = await put(event_id=event_id, metadata={})
        assert status == 400
        assert answer["message"] == "no session or event with this event_id"


async def test_every_request_is_recorded_with_its_reason(
    post: Call, client: aiohttp.ClientSession, hive: Collector, event: Make
) -> None:
    await post(event(), event())
    await post(event(project=...))
    async with client.get("/nowhere"):
        pass
    good, bad, nowhere = hive.requests()
    assert (good.id, good.method, good.path, good.status) == (1, "POST", "/events/model/batch", 200)
    assert (good.events, good.encoding, good.fault, good.message) == (2, "identity", None, None)
    assert good.bytes == len(json.dumps({"model_events": [event(), event()]}))
    assert good.latency is not None
    assert good.latency > 0
    assert (bad.status, bad.events, bad.message) == (400, 0, "model_events[0].project: required")
    assert (nowhere.status, nowhere.bytes, nowhere.encoding) == (404, 0, None)
    stats = hive.stats()
    assert stats.requests == 3
    assert stats.requests_by_status == {"200": 1, "400": 1, "404": 1}
    assert stats.bytes == good.bytes + bad.bytes


async def test_the_file_can_be_queried_while_the_collector_runs_and_opened_again(
    tmp_path: Path, event: Make
) -> None:
    db = tmp_path / "dev.db"
    headers = {"Authorization": "Bearer k"}
    body = {
        "model_events": [event(cost=0.5), event(cost="0.25")],
        "is_single_session": True,
        "session_properties": {"session_id": "s", "metadata": {"user": "u"}},
    }
    for seen in (2, 4):
        async with collector(db=db) as hive, aiohttp.ClientSession(hive.url, headers=headers) as client:
            async with client.post("/events/model/batch", json=body) as response:
                assert response.status == 200
            reader = sqlite3.connect(db)
            rows = reader.execute(
                "SELECT model, count(*), sum(cost), json_extract(event, '$.usage.total_tokens') "
                "FROM events JOIN requests ON requests.id = request_id WHERE status = 200 GROUP BY model"
            ).fetchall()
            metadata = reader.execute(
                "SELECT json_extract(properties, '$.metadata.user') FROM sessions"
            ).fetchall()
            reader.close()
            assert rows == [("gpt-4o", seen, seen * 0.375, 20)]
            assert metadata == [("u",)]
            assert [request.id for request in hive.requests()] == list(range(1, seen // 2 + 1))
    assert names_in(tmp_path) == ["dev.db"]


async def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, " * 100)
    foreign = tmp_path / "foreign.db"
    other = sqlite3.connect(foreign)
    other.execute("CREATE TABLE events (mine)")
    other.close()
    for path, reason in [(text, "file is not a database"), (foreign, "it holds something else")]:
        before = path.read_bytes()
        with pytest.raises(ConfigError, match=f"db: cannot use .*{path.name}.*{reason}"):
            await Collector(db=path).start()
        assert path.read_bytes() == before


async def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"db: cannot use .*unable to open"):
        await Collector(db=tmp_path / "missing" / "dev.db").start()


async def test_clearing_forgets_everything(post: Call, hive: Collector, event: Make) -> None:
    await post(event(), is_single_session=True)
    hive.clear()
    assert (hive.events(), hive.sessions(), hive.requests()) == ([], [], [])
    assert hive.stats().requests_by_status == {}


async def test_what_cannot_be_stored_is_not_half_stored(hive: Collector, post: Call, event: Make) -> None:
    """A request is stored whole or not at all, also when SQLite itself refuses in the middle."""
    hive._parts[0]._connection.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON events WHEN NEW.event_id = 'bad' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with pytest.raises(aiohttp.ContentTypeError):  # aiohttp's own answer to a handler that failed
        await post(event(), event(event_id="bad"), is_single_session=True)
    assert (hive.events(), hive.sessions()) == ([], [])
    assert hive.requests()[0].status == 500
    assert hive.requests()[0].message == "the collector failed: IntegrityError('no')"
    status, _ = await post(event())
    assert status == 200


async def test_a_refused_request_makes_no_session(post: Call, hive: Collector, event: Make) -> None:
    hive.faults = Faults(fail={503: 1})
    await post(event(), is_single_session=True, session_properties={"session_id": "s"})
    assert hive.sessions() == []


async def test_a_reader_of_the_file_never_stops_the_collector(tmp_path: Path, event: Make) -> None:
    """As when the sqlite3 shell stands in the middle of a long listing."""
    db = tmp_path / "dev.db"
    headers = {"Authorization": "Bearer k"}
    async with collector(db=db) as hive, aiohttp.ClientSession(hive.url, headers=headers) as client:
        reader = sqlite3.connect(db, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM events").fetchall()
        async with client.post("/events/model/batch", json={"model_events": [event()]}) as response:
            assert response.status == 200
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (0,)
        reader.close()
        assert len(hive.events()) == 1


def test_a_reader_in_another_thread_never_sees_half_a_request() -> None:
    store = Store(":memory:")
    seen: list[list[StoredEvent]] = []
    reader = threading.Thread(target=lambda: seen.append(store.events()))
    with suppress(ZeroDivisionError), store._writing() as db:
        db.execute(
            "INSERT INTO events (event_id, server_id, received_at, request_id, event) "
            "VALUES ('e', 'e', 0, 1, '{}')"
        )
        reader.start()
        # Without the lock the reader is through long before this is over, and has seen the row.
        reader.join(0.2)
        _ = 1 / 0
    reader.join()
    assert seen == [[]]
    store.close()
