"""Payloads and secrets: what users of other exporters complained about, and what must not happen here."""

import asyncio
import json
import logging
from collections import Counter

import pytest

from honeyhive_batcher import Batcher
from honeyhive_batcher.core.model import Reply, Response
from tests.fakes import OK, FakeTransport, fates, make_batcher
from tests.integration.raw_server import Connection, Fault, RawServer
from tests.virtual_time import run_virtually

EVENT = {"model": "gpt-4o"}


class Unspeakable:
    """Cannot be JSON, nor even be shown."""

    def __repr__(self) -> str:
        raise ValueError

    __str__ = __repr__


def test_a_server_that_takes_less_gets_less_and_every_event_arrives() -> None:
    """A batch that was too large for the server was lost as a whole: 55 of 1000 traces arrived
    (DataDog/dd-trace-py#10212, DataDog/dd-trace-py#12692).
    """
    taken: Counter[str] = Counter()
    refused = learning = 0

    async def main() -> None:
        nonlocal learning

        async def server() -> Reply:
            nonlocal refused
            sent = transport.sent[-1]
            if len(sent.request.body) > 100_000:
                refused += 1
                return Response(status=413)
            taken.update(str(event["event_id"]) for event in sent.events)
            return OK

        transport = FakeTransport(otherwise=server)
        async with make_batcher(transport, max_batch_events=500) as batcher:
            for number in range(1000):
                assert batcher.push({"event_id": str(number), "inputs": "x" * 2000})
                if number == 499:
                    await batcher.flush()
                    learning = refused
            await batcher.flush()
        assert fates(batcher) == {"delivered": 1000}
        assert 1 <= learning == refused  # what was learned is remembered

    run_virtually(main)
    assert len(taken) == 1000
    assert set(taken.values()) == {1}


@pytest.mark.parametrize(
    "value",
    [object(), Unspeakable(), {1, 2}, b"\xff", float("nan"), "\ud800", {("a", "b"): 1}, 1 << 80, lambda: 0],
    ids=["object", "unspeakable", "set", "bytes", "nan", "surrogate", "odd key", "huge", "function"],
)
def test_a_value_that_is_not_json_costs_no_event(value: object) -> None:
    """One value that could not be made JSON threw the whole batch away (openai/openai-agents-python#4983)."""
    transport = FakeTransport()

    async def main() -> None:
        async with make_batcher(transport) as batcher:
            for number in range(10):
                assert batcher.push({"event_name": str(number), "inputs": value if number == 4 else "fine"})
        assert fates(batcher) == {"delivered": 10}

    run_virtually(main)
    (sent,) = transport.sent
    body = json.loads(sent.request.body)  # by another JSON than the one that wrote it
    assert [event["event_name"] for event in body["model_events"]] == [str(number) for number in range(10)]


KEY = "hh_canary_key_0123456789"
CONTENT = "canary content 9876543210"


def answering(status: int) -> Fault:
    async def answer(connection: Connection) -> bool:
        await connection.request()
        await connection.answer(status, CONTENT.encode(), f"X-Echo: {KEY}")
        return True

    return answer


async def reset(connection: Connection) -> bool:
    await connection.request()
    connection.reset()
    return False


@pytest.mark.parametrize(
    "fault",
    [answering(200), answering(401), answering(400), answering(500), reset],
    ids=["200", "401", "400", "500", "reset"],
)
def test_the_key_and_what_events_hold_stand_in_no_log_of_any_level(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    """At the debug level every request was logged with its headers, the API key among them
    (openai/openai-python#1196).
    """
    caplog.set_level(logging.DEBUG)  # of the root, so of every library too
    shown: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_debug(True)
        async with RawServer(*[fault] * 3) as server:
            batcher = Batcher(api_key=KEY, base_url=server.url, flush_interval=0, max_retries=1)
            await batcher.start()
            assert batcher.push({**EVENT, "event_id": "1", "inputs": CONTENT})
            result = await batcher.flush(timeout=5)
            shown.extend([repr(batcher), repr(batcher.config), repr(vars(batcher)), repr(result)])
            await batcher.aclose(timeout=0.1)
            shown.extend([repr(batcher.statistics()), repr(batcher._lifecycle._worker)])
            assert KEY.encode() in server.heads[0]  # it was sent, and so might have shown

    asyncio.run(main())
    assert caplog.records
    shown += [caplog.text, *(repr(vars(record)) for record in caplog.records)]
    for text in shown:
        assert KEY not in text
        assert CONTENT not in text
