"""From `push` to a stored event, over the wire, with the local HoneyHive at the other end."""

import asyncio
import json
import threading
from typing import Any

import msgspec
import pytest

from honeyhive_batcher import Admission, Batcher, ModelEvent, SessionProperties, __version__
from honeyhive_batcher.testing import Answer, Collector, Faults, RequestInfo, collector
from tests.fakes import check_ledger, fates
from tests.integration.conftest import DATA
from tests.integration.raw_server import Connection, RawServer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

CORPUS = [json.loads(line) for line in (DATA / "model_events.jsonl").read_bytes().splitlines()]
EXAMPLE = json.loads((DATA / "documentation_example.json").read_bytes())

EVENT = {
    "project": "shop",
    "model": "gpt-4o",
    "provider": "openai",
    "messages": [],
    "response": {},
    "duration": 1,
    "usage": {},
}


def make_batcher(hive: Collector, **settings: Any) -> Batcher:
    return Batcher(**hive.settings(), **{"backoff_base": 0.01, **settings})


def watch(hive: Collector, steps: int = 20) -> list[RequestInfo]:
    """Return a list that fills with the requests to come."""
    seen: list[RequestInfo] = []
    hive.script(*[seen.append] * steps)
    return seen


# Events.


async def test_every_event_of_the_corpus_arrives_key_for_key_and_with_an_id() -> None:
    async with collector() as hive:
        async with make_batcher(hive, max_batch_events=7, max_in_flight=1) as batcher:
            for event in CORPUS:
                assert batcher.push(event)
        arrived = [stored.event for stored in hive.events()]
        assert len({event["event_id"] for event in arrived}) == len(CORPUS) == len(arrived)
        for event, pushed in zip(arrived, CORPUS, strict=True):
            assert event == {"event_id": event["event_id"], **pushed}
        assert fates(batcher) == {"delivered": len(CORPUS)}


async def test_the_events_of_a_batch_arrive_in_the_order_in_which_they_were_pushed() -> None:
    async with collector() as hive:
        async with make_batcher(hive, max_in_flight=1, max_batch_events=3) as batcher:
            for number in range(10):
                batcher.push({**EVENT, "event_name": str(number)})
        assert [stored.event_name for stored in hive.events()] == [str(number) for number in range(10)]


async def test_ten_thousand_events_pass_through_a_small_queue() -> None:
    async with collector() as hive:
        async with make_batcher(hive, max_queue_events=500, flush_interval=0.01) as batcher:
            for number in range(10_000):
                assert await batcher.put({**EVENT, "event_id": f"event-{number}"}, timeout=30)
            assert (await batcher.flush(timeout=30)).ok
        assert {stored.event_id for stored in hive.events()} == {
            f"event-{number}" for number in range(10_000)
        }
        assert hive.stats().duplicates == 0
        numbers = check_ledger(batcher)
        assert (numbers.accepted, numbers.delivered, numbers.held_bytes) == (10_000, 10_000, 0)


async def test_eight_threads_may_push_at_once() -> None:
    def push(thread: int) -> None:
        for number in range(500):
            assert batcher.push({**EVENT, "event_id": f"{thread}-{number}"})

    async with collector() as hive:
        async with make_batcher(hive) as batcher:
            threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                await asyncio.to_thread(thread.join)
        expected = {f"{thread}-{number}" for thread in range(8) for number in range(500)}
        assert {stored.event_id for stored in hive.events()} == expected
        assert fates(batcher) == {"delivered": 4000}


async def test_a_large_batch_arrives_whole() -> None:
    """aiohttp warns about bytes beyond a mebibyte, and a warning is an error here."""
    async with collector() as hive:
        async with make_batcher(hive) as batcher:
            for number in range(3):
                assert batcher.push({**EVENT, "event_name": str(number), "messages": ["x" * 1_000_000]})
        assert [len(stored.event["messages"][0]) for stored in hive.events()] == [1_000_000] * 3
        assert fates(batcher) == {"delivered": 3}
        assert max(request.bytes for request in hive.requests()) > 2**21


async def test_everything_arrives_although_the_server_misbehaves() -> None:
    faults = Faults(fail={429: 0.05, 503: 0.1}, partial=0.1, drop_connection=0.1, retry_after="0")
    async with collector(faults=faults, seed=7) as hive:
        async with make_batcher(hive, max_batch_events=10, max_retries=100, backoff_max=0.05) as batcher:
            for number in range(1000):
                assert batcher.push({**EVENT, "event_id": f"event-{number}"})
            assert (await batcher.flush(timeout=30)).ok
        assert {stored.event_id for stored in hive.events()} == {f"event-{number}" for number in range(1000)}
        assert fates(batcher) == {"delivered": 1000}


async def test_one_event_that_the_server_refuses_costs_no_other() -> None:
    async with collector() as hive:
        async with make_batcher(hive, max_batch_events=64) as batcher:
            for number in range(64):
                batcher.push({**EVENT, "duration": "long" if number == 40 else number})
            await batcher.flush(timeout=30)
        assert fates(batcher) == {"delivered": 63, "rejected": 1}
        assert len(hive.events()) == 63


async def test_structs_and_what_is_filled_in_arrive() -> None:
    async with collector() as hive:
        async with make_batcher(hive, project="shop", source="test", event_name="call") as batcher:
            batcher.push(
                ModelEvent(model="m", provider="p", messages=[], response=None, duration=1.5, usage={})
            )
        (stored,) = hive.events()
        assert (stored.project, stored.source, stored.event_name) == ("shop", "test", "call")
        assert stored.event["response"] is None


# Sessions.


async def test_the_events_of_a_session_arrive_in_it() -> None:
    async with collector() as hive:
        async with make_batcher(hive) as batcher:
            with batcher.session(session_name="chat", inputs={"question": "?"}) as session:
                batcher.push(EVENT)
                await asyncio.to_thread(batcher.push, EVENT)
                await asyncio.create_task(_push(batcher))
            batcher.push(EVENT)
            batcher.push(EVENT, session=session)
        assert [stored.session_id for stored in hive.events()].count(session.session_id) == 4
        (kept,) = hive.sessions()
        assert kept.session_id == session.session_id
        assert kept.properties["session_name"] == "chat"
        assert kept.properties["inputs"] == {"question": "?"}


async def _push(batcher: Batcher) -> None:
    batcher.push(EVENT)


async def test_how_a_session_ended_rides_with_its_last_batch() -> None:
    async with collector() as hive:
        async with make_batcher(hive) as batcher:
            with batcher.session(session_name="chat") as session:
                batcher.push(EVENT)
                session.outputs = {"answer": "!"}
        (kept,) = hive.sessions()
        assert kept.properties["outputs"] == {"answer": "!"}
        assert (kept.batches, kept.updates) == (1, 0)
        assert [request.method for request in hive.requests()] == ["POST"]
        assert fates(batcher) == {"delivered": 2}  # the event, and the closing


async def test_how_a_session_ended_follows_as_an_update_when_its_events_have_left() -> None:
    async with collector() as hive:
        async with make_batcher(hive) as batcher:
            with batcher.session(session_name="chat") as session:
                batcher.push(EVENT)
                assert await batcher.flush(timeout=10)
                session.outputs = "!"
                session.metrics = {"turns": 1}
            assert await batcher.flush(timeout=10)
        (kept,) = hive.sessions()
        assert kept.properties["outputs"] == {"output": "!"}
        assert kept.properties["metrics"] == {"turns": 1}
        assert (kept.batches, kept.updates) == (1, 1)
        assert [(request.method, request.path) for request in hive.requests()] == [
            ("POST", "/events/model/batch"),
            ("PUT", "/events"),
        ]


async def test_an_update_waits_until_the_events_of_its_session_have_arrived() -> None:
    async with collector() as hive:
        hive.script(Answer.refused(503, retry_after="0"))
        async with make_batcher(hive, flush_interval=0) as batcher:
            with batcher.session(session_name="chat") as session:
                batcher.push(EVENT)
                await asyncio.sleep(0)
                session.feedback = {"rating": 5}
            assert await batcher.flush(timeout=10)
        (kept,) = hive.sessions()
        assert kept.properties["feedback"] == {"rating": 5}
        assert fates(batcher) == {"delivered": 2}


async def test_a_session_without_events_is_never_sent() -> None:
    async with collector() as hive:
        async with make_batcher(hive) as batcher:
            with batcher.session(session_name="chat") as session:
                session.outputs = {"answer": "!"}
        assert hive.requests() == []


async def test_session_properties_may_be_a_struct() -> None:
    async with collector() as hive:
        async with make_batcher(hive, session_name="usual", source="test") as batcher:
            with batcher.session(SessionProperties(session_id="mine", inputs={"a": 1})):
                batcher.push(EVENT)
        (kept,) = hive.sessions()
        assert (kept.session_id, kept.session_name, kept.source) == ("mine", "usual", "test")


# What is on the wire.


async def test_the_example_of_the_documentation_is_sent_as_it_stands_there() -> None:
    (event,) = EXAMPLE["model_events"]
    async with collector() as hive:
        seen = watch(hive)
        async with make_batcher(hive) as batcher:
            with batcher.session(EXAMPLE["session_properties"]):
                assert batcher.push(event) is Admission.ACCEPTED
        (request,) = seen
        body = msgspec.json.decode(request.body)
        event_id = body["model_events"][0].pop("event_id")
        assert body == EXAMPLE
        assert list(body) == list(EXAMPLE)
        assert len(event_id) == 36
        assert (request.method, request.path) == ("POST", "/events/model/batch")


async def test_events_without_a_session_are_sent_without_a_word_about_one() -> None:
    async with collector() as hive:
        seen = watch(hive)
        async with make_batcher(hive) as batcher:
            batcher.push({**EVENT, "event_id": "mine"})
            batcher.push({**EVENT, "session_id": "a session of its own"})
        (request,) = seen
        body = msgspec.json.decode(request.body)
        assert list(body) == ["model_events"]
        assert body["model_events"][0] == {**EVENT, "event_id": "mine"}


async def test_requests_carry_the_key_and_say_who_sends_what() -> None:
    async with RawServer() as server:
        async with Batcher(
            api_key="hh_secret", base_url=f"{server.url}/prefix/", flush_interval=0
        ) as batcher:
            batcher.push(EVENT)
        (head,) = server.heads
        request_line, *lines = head.decode().strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        assert request_line == "POST /prefix/events/model/batch HTTP/1.1"
        assert headers["Authorization"] == "Bearer hh_secret"
        assert headers["Content-Type"] == "application/json"
        assert headers["User-Agent"] == f"honeyhive-batcher/{__version__}"
        assert headers["Accept-Encoding"] == "identity"
        assert headers["Content-Length"] == str(len(server.bodies[0]))
        assert "Cookie" not in headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_sends_nothing_to_another_origin(status: int) -> None:
    async with RawServer() as elsewhere:

        async def redirect(connection: Connection) -> bool:
            await connection.request()
            await connection.answer(status, b"", f"Location: {elsewhere.url}/events/model/batch")
            return True

        async with RawServer(redirect) as server:
            batcher = Batcher(api_key="hh_test", base_url=server.url, flush_interval=0)
            async with batcher:
                batcher.push(EVENT)
                assert (await batcher.flush(timeout=10)).held == 1
                assert batcher.statistics().endpoint == "held"
            assert batcher.statistics().last_error == f"HTTP {status}"
        assert elsewhere.connections == 0
        assert len(server.heads) == 1


async def test_cookies_of_the_server_are_not_kept() -> None:
    async def set_cookie(connection: Connection) -> bool:
        await connection.request()
        await connection.answer(200, b"{}", "Set-Cookie: who=you; Path=/")
        return True

    async with RawServer(set_cookie) as server:
        async with Batcher(api_key="hh_test", base_url=server.url, flush_interval=0) as batcher:
            for _ in range(2):
                batcher.push(EVENT)
                assert await batcher.flush(timeout=10)
        assert len(server.heads) == 2
        assert b"Cookie" not in server.heads[1]


# Without a network.


async def test_in_test_mode_nothing_is_sent_and_everything_counts_as_delivered() -> None:
    told: list[tuple[str, ...]] = []
    async with Batcher(test_mode=True, on_delivered=told.append) as batcher:
        batcher.push({**EVENT, "event_id": "mine"})
        assert await batcher.flush()
    assert told == [("mine",)]
    assert fates(batcher) == {"delivered": 1}
