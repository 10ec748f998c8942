"""An idle batcher costs nothing: no wake-ups, and one for each thing that happens."""

import asyncio
import logging

import pytest

from honeyhive_batcher.core.model import Response
from tests.fakes import HANG, RESET, FakeTransport, fates, make_batcher
from tests.virtual_time import now, virtual_loop

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

EVENT = {"model": "gpt-4o"}
HOUR = 3600.0


async def turns_of(seconds: float) -> int:
    """Sleep, and return how many turns the loop took for others than this one."""
    before = virtual_loop().turns
    await asyncio.sleep(seconds)
    return virtual_loop().turns - before - 2


async def test_an_idle_hour_wakes_nobody() -> None:
    batcher = make_batcher(FakeTransport())
    await batcher.start()
    await asyncio.sleep(1)
    assert await turns_of(HOUR) == 0
    batcher.push(EVENT)
    await batcher.flush()
    await asyncio.sleep(1)
    assert await turns_of(HOUR) == 0
    await batcher.aclose()


async def test_an_hour_of_waiting_for_one_answer_wakes_nobody() -> None:
    batcher = make_batcher(FakeTransport(HANG), max_in_flight=1, max_batch_events=1)
    await batcher.start()
    batcher.push(EVENT)
    batcher.push(EVENT)
    await asyncio.sleep(1)
    assert await turns_of(HOUR) == 0
    await batcher.aclose(timeout=0)


async def test_an_hour_of_waiting_for_room_or_settlement_wakes_nobody() -> None:
    batcher = make_batcher(FakeTransport(HANG), max_queue_events=1, max_batch_events=1)
    await batcher.start()
    batcher.push(EVENT)
    waiting = [asyncio.create_task(batcher.put(EVENT)), asyncio.create_task(batcher.flush())]
    await asyncio.sleep(1)
    assert await turns_of(HOUR) == 0
    await batcher.aclose(timeout=0)
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_an_hour_at_a_server_that_refuses_the_key_costs_a_request_a_minute() -> None:
    transport = FakeTransport(otherwise=Response(status=401))
    batcher = make_batcher(transport)
    await batcher.start()
    batcher.push(EVENT)
    await asyncio.sleep(2)
    assert await turns_of(HOUR) < 60 * 8
    assert len(transport.sent) == 61
    assert fates(batcher) == {"held": 1}
    await batcher.aclose()


async def test_trouble_before_the_key_is_refused_does_not_make_it_spin() -> None:
    transport = FakeTransport(Response(status=503), otherwise=Response(status=401))
    batcher = make_batcher(transport)
    await batcher.start()
    batcher.push(EVENT)
    assert await turns_of(HOUR) < 60 * 8
    await batcher.aclose()


async def test_an_outage_costs_a_request_for_each_back_off(caplog: pytest.LogCaptureFixture) -> None:
    transport = FakeTransport(otherwise=RESET)
    batcher = make_batcher(transport, max_retries=1000, max_elapsed=HOUR)
    await batcher.start()
    batcher.push(EVENT)
    turns = await turns_of(HOUR / 2)
    assert len(transport.sent) < 70
    assert turns < 8 * len(transport.sent)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "has not taken events for 30 s" in errors[0].getMessage()
    await batcher.aclose(timeout=0)


async def test_events_that_change_nothing_wake_nobody() -> None:
    transport = FakeTransport()
    async with make_batcher(transport, max_batch_events=1000) as batcher:
        await asyncio.sleep(0.5)
        batcher.push(EVENT)
        await asyncio.sleep(0.25)
        turns = virtual_loop().turns
        for _ in range(100):
            batcher.push(EVENT)
            await asyncio.sleep(0)
        assert virtual_loop().turns - turns == 100
        assert now() == 0.75
        await asyncio.sleep(1)
        assert transport.instants == [1.5]


async def test_a_burst_wakes_the_worker_once() -> None:
    transport = FakeTransport()
    async with make_batcher(transport, max_batch_events=10) as batcher:
        await asyncio.sleep(0.5)
        for _ in range(40):
            batcher.push(EVENT)
        turns = await turns_of(0.25)
        assert turns < 8
        assert transport.instants == [0.5] * 4
