"""Misbehaving on demand."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from honeyhive_batcher.errors import ConfigError
from honeyhive_batcher.testing import Answer, Collector, Faults, RequestInfo, collector

Call = Callable[..., Awaitable[tuple[int, Any]]]
Make = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.anyio


async def answers(
    count: int, *, events: int = 2, faults: Faults, seed: int = 0
) -> list[tuple[int | None, str, list[str], str | None]]:
    """Send so many requests to a collector with these settings; list what came back and what was stored."""
    seen: list[tuple[int | None, str, list[str], str | None]] = []
    headers = {"Authorization": "Bearer k"}
    async with (
        collector(faults=faults, seed=seed) as hive,
        aiohttp.ClientSession(hive.url, headers=headers) as client,
    ):
        for number in range(count):
            batch = [{"model_name": "m", "event_id": f"{number}-{at}"} for at in range(events)]
            came: tuple[int | None, str] = None, ""
            with suppress(aiohttp.ClientConnectionError):
                async with client.post("/events/model/batch", json={"model_events": batch}) as response:
                    came = response.status, (await response.read()).decode()
            stored = [each.event_id for each in hive.events() if each.event_id.startswith(f"{number}-")]
            seen.append((*came, stored, hive.requests()[-1].fault))
    return seen


@pytest.mark.parametrize(
    ("status", "retry_after"), [(429, "1"), (503, "1"), (500, None), (502, None), (302, None)]
)
async def test_fail_refuses_with_the_documented_body_and_stores_nothing(
    post: Call,
    client: aiohttp.ClientSession,
    hive: Collector,
    event: Make,
    status: int,
    retry_after: str | None,
) -> None:
    hive.faults = Faults(fail={status: 1.0})
    body = {"model_events": [event()]}
    async with client.post("/events/model/batch", json=body, allow_redirects=False) as response:
        assert response.status == status
        assert response.headers.get("Retry-After") == retry_after
        answer = await response.json()
    assert answer["statusCode"] == status
    assert answer["success"] is False
    assert answer["message"] == hive.requests()[0].message == f"injected by the collector: {status}"
    assert hive.requests()[0].fault == f"fail {status}"
    assert hive.events() == []


async def test_retry_after_can_be_chosen(client: aiohttp.ClientSession, hive: Collector, event: Make) -> None:
    hive.faults = Faults(fail={500: 1}, retry_after="Wed, 21 Oct 2099 07:28:00 GMT")
    async with client.post("/events/model/batch", json={"model_events": [event()]}) as response:
        assert response.headers["Retry-After"] == "Wed, 21 Oct 2099 07:28:00 GMT"


async def test_a_status_without_a_name_is_answered_as_well(post: Call, hive: Collector, event: Make) -> None:
    hive.faults = Faults(fail={599: 1})
    status, answer = await post(event())
    assert (status, answer["errorCode"]) == (599, "UNKNOWN")


async def test_faults_befall_updates_too(post: Call, put: Call, hive: Collector, event: Make) -> None:
    await post(event(event_id="e"))
    hive.faults = Faults(fail={429: 1})
    status, _ = await put(event_id="e", error="late")
    assert status == 429
    assert hive.events()[0].updates == 0


async def test_a_wrong_request_is_refused_as_ever(post: Call, hive: Collector, event: Make) -> None:
    hive.faults = Faults(fail={429: 1})
    status, _ = await post(event(project=...))
    assert status == 400


async def test_partial_creates_a_proper_part_and_answers_the_documented_500() -> None:
    sizes = set()
    for status, body, stored, fault in await answers(40, events=4, faults=Faults(partial=1)):
        answer = json.loads(body)
        assert (status, fault) == (500, "partial")
        assert answer["event_ids"] == stored
        assert answer["errors"] == ["Could not create event due to missing model"] * (4 - len(stored))
        assert answer["success"] is True
        assert stored == sorted(stored)
        sizes.add(len(stored))
    assert sizes == {1, 2, 3}


async def test_partial_needs_two_events() -> None:
    assert [status for status, *_ in await answers(5, events=1, faults=Faults(partial=1))] == [200] * 5


async def test_a_dropped_connection_has_stored_in_half_of_the_cases() -> None:
    seen = await answers(40, faults=Faults(drop_connection=1))
    assert {status for status, *_ in seen} == {None}
    for _, _, stored, fault in seen:
        assert fault == f"drop_connection {'after' if stored else 'before'} storing"
    assert 10 < sum(bool(stored) for _, _, stored, _ in seen) < 30


async def test_fail_after_store_is_a_load_balancer_that_gave_up() -> None:
    ((status, body, stored, fault),) = await answers(1, faults=Faults(fail_after_store=1))
    assert (status, stored, fault) == (502, ["0-0", "0-1"], "fail_after_store")
    assert body.startswith("<html>")


async def test_garbage_is_never_json() -> None:
    seen = await answers(40, faults=Faults(garbage=1))
    for status, body, stored, fault in seen:
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)
        assert bool(stored) == (status == 200)
        assert fault == f"garbage {status}"
    assert {status for status, *_ in seen} == {200, 500}


async def test_no_echo_answers_with_ids_of_the_server(
    post: Call, put: Call, hive: Collector, event: Make
) -> None:
    hive.faults = Faults(no_echo=True)
    _, answer = await post(event(event_id="mine"), event())
    mine, made = hive.events()
    assert answer["event_ids"] == [mine.server_id, made.server_id]
    assert (mine.event_id, mine.event) == ("mine", event(event_id="mine"))
    assert mine.server_id != "mine"
    assert made.event_id == made.server_id
    status, _ = await put(event_id=mine.server_id, error="found by the server's id")
    assert status == 200
    assert hive.events()[0].error == "found by the server's id"


async def test_latency_comes_after_storing_and_before_the_answer(
    client: aiohttp.ClientSession, hive: Collector, event: Make
) -> None:
    stored = asyncio.Event()

    def wait_after_storing(_: RequestInfo) -> Answer:
        # Storing does not yield to the loop, so this is called when it is over.
        asyncio.get_running_loop().call_soon(stored.set)
        return Answer(delay=30)

    hive.script(wait_after_storing)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(client.post("/events/model/batch", json={"model_events": [event()]}))
        await stored.wait()
        assert len(hive.events()) == 1
        assert hive.requests()[0].latency is None
        assert not task.done()
        task.cancel()


async def test_latency_and_jitter_are_seconds_added(post: Call, hive: Collector, event: Make) -> None:
    hive.faults = Faults(latency=0.05, latency_jitter=0.05)
    await post(event())
    latency = hive.requests()[0].latency
    assert latency is not None
    assert 0.05 <= latency < 5


async def test_a_delayed_request_whose_client_gives_up_has_stored_and_says_so(event: Make) -> None:
    ended = asyncio.Event()
    headers = {"Authorization": "Bearer k"}
    async with (
        asyncio.timeout(10),
        Collector(faults=Faults(latency=60), on_request=lambda _: ended.set()) as hive,
    ):
        timeout = aiohttp.ClientTimeout(total=0.2)
        async with aiohttp.ClientSession(hive.url, headers=headers, timeout=timeout) as client:
            with pytest.raises(TimeoutError):
                await client.post("/events/model/batch", json={"model_events": [event()]})
        await ended.wait()
        (request,) = hive.requests()
        assert (request.status, request.message) == (None, "no answer: the client went away")
        assert len(hive.events()) == 1


@pytest.mark.parametrize("faults", [Faults(hang=1), Faults(latency=60)])
async def test_closing_cuts_what_hangs_or_is_delayed_at_once(event: Make, faults: Faults) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        taken = asyncio.Event()

        async def ask(url: str) -> None:
            headers = {"Authorization": "Bearer k"}
            async with aiohttp.ClientSession(url, headers=headers) as client:
                with suppress(aiohttp.ClientConnectionError):
                    await client.post("/events/model/batch", json={"model_events": [event()]})
                    pytest.fail("answered")

        def take(_: RequestInfo) -> Answer:
            asyncio.get_running_loop().call_soon(taken.set)
            return Answer.hung() if faults.hang else Answer(delay=60)

        async with collector(faults=faults) as hive:
            hive.script(take)
            group.create_task(ask(hive.url))
            await taken.wait()
            (request,) = hive.requests()
            assert (request.status, request.latency) == (None, None)
            assert request.fault == ("hang" if faults.hang else None)
            began_at = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began_at < 1


async def test_hang_by_chance_stores_nothing(event: Make) -> None:
    ended = asyncio.Event()
    headers = {"Authorization": "Bearer k"}
    timeout = aiohttp.ClientTimeout(total=0.2)
    async with (
        asyncio.timeout(10),
        Collector(faults=Faults(hang=1), on_request=lambda _: ended.set()) as hive,
        aiohttp.ClientSession(hive.url, headers=headers, timeout=timeout) as client,
    ):
        with pytest.raises(TimeoutError):
            await client.post("/events/model/batch", json={"model_events": [event()]})
        await ended.wait()
        assert hive.requests()[0].fault == "hang"
        assert hive.events() == []


MIXED = Faults(fail={429: 0.2, 503: 0.1}, partial=0.2, drop_connection=0.1, garbage=0.1, fail_after_store=0.1)


async def test_equal_seeds_misbehave_equally() -> None:
    first, second, other = [await answers(60, events=3, faults=MIXED, seed=seed) for seed in (7, 7, 8)]
    assert first == second
    assert first != other
    assert {fault for *_, fault in first} >= {None, "fail 429", "partial", "fail_after_store"}


async def test_one_more_fault_does_not_move_where_the_others_fall() -> None:
    alone = [status for status, *_ in await answers(60, faults=Faults(fail={429: 0.3}), seed=1)]
    mixed = await answers(60, faults=Faults(fail={429: 0.3}, garbage=0.2, partial=0.2), seed=1)
    assert [status == 429 for status, *_ in mixed] == [status == 429 for status in alone]
    assert 5 < alone.count(429) < 31


async def test_faults_change_live_over_http(
    client: aiohttp.ClientSession, post: Call, hive: Collector, event: Make
) -> None:
    async with client.post("/_dev/faults", json={"fail": {"429": 1}, "retry_after": "3"}) as response:
        assert response.status == 200
    assert hive.faults == Faults(fail={429: 1.0}, retry_after="3")
    assert (await post(event()))[0] == 429
    async with client.get("/_dev/faults") as response:
        shown = await response.json()
    assert shown["fail"] == {"429": 1.0}
    async with client.post("/_dev/faults", json={**shown, "fail": {}}) as response:
        assert response.status == 200
    assert (await post(event()))[0] == 200


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"partial": 1.5}, "partial: 1.5 is not a number from 0 to 1"),
        ({"partial": "1"}, "$.partial"),
        ({"latency": -1}, "latency: -1.0 is not a number from 0 to 3600"),
        ({"fail": {"200": 1}}, "fail: 200 is not a status from 300 to 599"),
        ({"fail": {"429": 2}}, "fail[429]: 2.0 is not a number from 0 to 1"),
        ({"fail": {"429": 0.6, "503": 0.6}}, "fail: the probabilities add up to 1.2, more than 1"),
        (
            {"retry_after": "1\r\nSet-Cookie: a"},
            "retry_after: '1\\r\\nSet-Cookie: a' is not one line of text",
        ),
        ({"no_echo": 1}, "$.no_echo"),
        ({"explode": 1}, "explode"),
        ([], "array"),
    ],
)
async def test_wrong_faults_are_refused_by_name_and_change_nothing(
    client: aiohttp.ClientSession, hive: Collector, body: Any, named: str
) -> None:
    async with client.post("/_dev/faults", json=body) as response:
        assert response.status == 400
        assert named in (await response.json())["message"]
    assert hive.faults == Faults()


async def test_faults_that_are_no_json_are_refused(client: aiohttp.ClientSession) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (b"", b"{", b'{"\xff":1}'):
        async with client.post("/_dev/faults", data=body, headers=headers) as response:
            assert response.status == 400


async def test_a_web_page_cannot_set_faults(client: aiohttp.ClientSession, hive: Collector) -> None:
    """What a page of another origin may post without asking first is not JSON."""
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        headers = {"Content-Type": content_type}
        async with client.post("/_dev/faults", data=b'{"hang":1}', headers=headers) as response:
            assert response.status == 415
    assert hive.faults == Faults()


@pytest.mark.parametrize("value", [True, "0.5", None, math.nan, math.inf, -0.1])
@pytest.mark.parametrize(
    "name", ["partial", "latency", "latency_jitter", "drop_connection", "garbage", "hang"]
)
def test_faults_check_themselves(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: "):
        Faults(**{name: value})


def test_replaced_faults_check_themselves() -> None:
    assert Faults(partial=0.5).replaced(hang=1) == Faults(partial=0.5, hang=1)
    with pytest.raises(ConfigError, match="hang"):
        Faults().replaced(hang=2)


async def test_a_script_has_one_step_per_request_before_the_faults_go_on(
    post: Call, hive: Collector, event: Make
) -> None:
    hive.faults = Faults(fail={503: 1})
    hive.script(Answer.refused(429, retry_after="7"), None)
    hive.script(Answer.partly(1))
    ids = [event(event_id="a"), event(event_id="b")]
    outcomes = [(await post(*ids))[0] for _ in range(4)]
    assert outcomes == [429, 200, 500, 503]
    assert [stored.event_id for stored in hive.events()] == ["a", "b", "b"]


async def test_a_refused_request_uses_no_step(post: Call, hive: Collector, event: Make) -> None:
    hive.script(Answer.refused(429))
    assert (await post(event(project=...)))[0] == 400
    assert (await post(event()))[0] == 429


async def test_a_step_may_be_a_function_of_the_request(post: Call, hive: Collector, event: Make) -> None:
    seen: list[RequestInfo] = []

    def step(info: RequestInfo) -> None:
        seen.append(info)

    async def slow_step(info: RequestInfo) -> Answer:
        seen.append(info)
        await asyncio.sleep(0)
        return Answer(status=200, created=(0,))

    hive.script(step, slow_step)
    assert (await post(event(event_id="a")))[0] == 200
    status, answer = await post(event(event_id="b"), event(event_id="c"))
    assert (status, answer["event_ids"]) == (200, ["b"])
    assert [info.id for info in seen] == [1, 2]
    assert [[each["event_id"] for each in info.events] for info in seen] == [["a"], ["b", "c"]]
    assert (seen[0].method, seen[0].path) == ("POST", "/events/model/batch")
    assert json.loads(seen[0].body) == {"model_events": [event(event_id="a")]}
    assert seen[0].headers["content-type"] == "application/json"
    assert "authorization" not in seen[0].headers


async def test_an_answer_may_be_anything(client: aiohttp.ClientSession, hive: Collector, event: Make) -> None:
    hive.script(Answer(status=500, body=b"", headers={"Content-Type": "text/plain", "X-Mine": "1"}))
    async with client.post("/events/model/batch", json={"model_events": [event()]}) as response:
        assert (response.status, await response.read()) == (500, b"")
        assert (response.headers["Content-Type"], response.headers["X-Mine"]) == ("text/plain", "1")
    assert len(hive.events()) == 1


async def test_an_unwritten_body_of_an_error_is_the_documented_one(
    post: Call, hive: Collector, event: Make
) -> None:
    hive.script(Answer(status=413, created=()))
    status, answer = await post(event())
    assert (status, answer["errorCode"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("stored", [True, False])
async def test_ready_made_answers_say_whether_they_store(
    client: aiohttp.ClientSession, hive: Collector, event: Make, stored: Any
) -> None:
    hive.script(
        Answer.bad_gateway(stored=stored), Answer.garbage(204, stored=stored), Answer.dropped(stored=stored)
    )
    for number in (1, 2):
        async with client.post("/events/model/batch", json={"model_events": [event()]}):
            assert len(hive.events()) == number * stored
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.post("/events/model/batch", json={"model_events": [event()]})
    assert len(hive.events()) == 3 * stored


async def test_clearing_forgets_the_script(post: Call, hive: Collector, event: Make) -> None:
    hive.script(Answer.refused(429))
    hive.clear()
    assert (await post(event()))[0] == 200
