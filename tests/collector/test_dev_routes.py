"""Looking at what is stored, over HTTP."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from honeyhive_batcher.testing import Collector, Faults

Call = Callable[..., Awaitable[tuple[int, Any]]]
Make = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.anyio


@pytest.fixture
def get(client: aiohttp.ClientSession) -> Call:
    async def get(path: str) -> tuple[int, Any]:
        # No key: these routes are the user's own.
        async with client.get(path, headers={"Authorization": ""}) as response:
            return response.status, await response.json()

    return get


async def test_events_are_listed_newest_last_with_the_event_inside(
    post: Call, get: Call, hive: Collector, event: Make
) -> None:
    await post(event(event_id="a"), event(event_id="b", cost=1))
    status, listed = await get("/_dev/events")
    assert status == 200
    assert [each["event_id"] for each in listed] == ["a", "b"]
    assert listed[1]["event"] == event(event_id="b", cost=1)
    assert listed[1]["cost"] == 1
    assert set(listed[0]) == {
        *(name for name in hive.events()[0].__struct_fields__ if name != "raw"),
        "event",
    }


async def test_a_window_counts_from_the_newest(post: Call, get: Call, event: Make) -> None:
    await post(*(event(event_id=str(number)) for number in range(150)))

    async def ids(query: str) -> list[int]:
        return [int(each["event_id"]) for each in (await get(f"/_dev/events{query}"))[1]]

    assert await ids("") == list(range(50, 150))
    assert await ids("?limit=3") == [147, 148, 149]
    assert await ids("?limit=3&offset=2") == [145, 146, 147]
    assert await ids("?limit=1000") == list(range(150))
    assert await ids("?limit=0") == []
    assert await ids("?offset=150") == []


async def test_events_can_be_filtered(post: Call, get: Call, event: Make) -> None:
    await post(event(event_id="a", model="one"), event(event_id="b", session_id="s"), event(event_id="c"))

    async def ids(query: str) -> list[str]:
        return [each["event_id"] for each in (await get(f"/_dev/events?{query}"))[1]]

    assert await ids("model=one") == ["a"]
    assert await ids("model=gpt-4o") == ["b", "c"]
    assert await ids("session_id=s") == ["b"]
    assert await ids("event_id=c") == ["c"]
    assert await ids("event_id=c&model=one") == []
    assert await ids("model=' OR 1=1 --") == []


async def test_sessions_and_requests_are_listed(post: Call, get: Call, event: Make) -> None:
    await post(event(), is_single_session=True, session_properties={"session_id": "s", "metadata": {"a": 1}})
    await post(event(), is_single_session=True, session_properties={"session_id": "t"})
    _, sessions = await get("/_dev/sessions?limit=1")
    assert [(each["session_id"], each["properties"]) for each in sessions] == [("t", {"session_id": "t"})]
    _, sessions = await get("/_dev/sessions?limit=1&offset=1")
    assert sessions[0]["properties"]["metadata"] == {"a": 1}
    _, requests = await get("/_dev/requests")
    assert [(each["id"], each["status"], each["events"]) for each in requests] == [(1, 200, 1), (2, 200, 1)]


async def test_stats_are_what_the_collector_says(post: Call, get: Call, hive: Collector, event: Make) -> None:
    await post(event(event_id="a"), event(event_id="a"))
    _, stats = await get("/_dev/stats")
    assert stats == {
        "events": 2,
        "distinct_events": 1,
        "duplicates": 1,
        "sessions": 0,
        "requests": 1,
        "requests_by_status": {"200": 1},
        "bytes": hive.requests()[0].bytes,
    }


async def test_deleting_the_events_clears_everything(
    post: Call, client: aiohttp.ClientSession, hive: Collector, event: Make
) -> None:
    await post(event(), is_single_session=True)
    async with client.delete("/_dev/events") as response:
        assert (response.status, await response.json()) == (200, {"success": True})
    assert (hive.events(), hive.sessions(), hive.requests()) == ([], [], [])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=1001", "limit: expected a whole number from 0 to 1000"),
        ("limit=-1", "limit: expected a whole number from 0 to 1000"),
        ("limit=ten", "limit: expected a whole number from 0 to 1000"),
        ("limit=" + "0" * 5000, "limit: expected a whole number from 0 to 1000"),
        ("offset=99999999999999999999", "offset: expected a whole number from 0 to 9223372036854775807"),
        ("modle=gpt-4o", "modle: not a parameter of this route"),
    ],
    ids=range(6),
)
async def test_a_wrong_query_is_refused_by_name(get: Call, query: str, message: str) -> None:
    status, answer = await get(f"/_dev/events?{query}")
    assert (status, answer["message"]) == (400, message)


async def test_looking_takes_no_faults_and_leaves_no_trace(get: Call, hive: Collector) -> None:
    hive.faults = Faults(fail={503: 1})
    for path in ("events", "sessions", "requests", "stats", "faults"):
        assert (await get(f"/_dev/{path}"))[0] == 200
    assert hive.requests() == []
