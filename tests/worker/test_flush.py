"""`flush` hurries, waits no longer than it says, and tells the truth."""

import asyncio

import pytest

from honeyhive_batcher import FlushResult
from honeyhive_batcher.core.model import Response
from tests.fakes import HANG, OK, REFUSED, RESET, FakeTransport, check_ledger, fates, make_batcher
from tests.virtual_time import now

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

EVENT = {"model": "gpt-4o"}


def result(
    *, ok: bool, delivered: int = 0, dropped: int = 0, unconfirmed: int = 0, held: int = 0
) -> FlushResult:
    return FlushResult(ok=ok, delivered=delivered, dropped=dropped, unconfirmed=unconfirmed, held=held)


# It hurries.


async def test_it_interrupts_the_wait_for_more_events() -> None:
    transport = FakeTransport(latency=0.5)
    async with make_batcher(transport, flush_interval=60) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(0.25)
        assert await batcher.flush() == result(ok=True, delivered=1)
        assert transport.instants == [0.25]
        assert now() == 0.75


async def test_it_interrupts_the_back_off() -> None:
    transport = FakeTransport(RESET)
    async with make_batcher(transport, max_batch_events=1, backoff_base=10) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(0.25)
        assert (await batcher.flush()).ok
        assert transport.instants == [0.0, 0.25]


async def test_it_interrupts_the_back_off_of_what_an_earlier_flush_has_sent() -> None:
    transport = FakeTransport(RESET, RESET)
    async with make_batcher(transport, backoff_base=10) as batcher:
        batcher.push(EVENT)
        assert (await batcher.flush(timeout=0.25)).held == 1
        assert (await batcher.flush(timeout=0.25)).held == 1
        assert await batcher.flush() == result(ok=True, delivered=1)
        assert transport.instants == [0.0, 0.25, 0.5]


async def test_its_extra_try_costs_no_retry_and_the_back_off_goes_on_as_before() -> None:
    transport = FakeTransport(REFUSED, REFUSED, REFUSED)
    async with make_batcher(transport, max_batch_events=1, backoff_base=10, max_retries=2) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(1)
        assert (await batcher.flush(timeout=1)).held == 1
        await asyncio.sleep(70)
        assert transport.instants == [0.0, 1.0, 31.0, 61.0]
        assert fates(batcher) == {"delivered": 1}


async def test_its_extra_try_counts_when_it_may_have_left_a_copy() -> None:
    transport = FakeTransport(otherwise=RESET)
    async with make_batcher(transport, max_batch_events=1, backoff_base=10, max_retries=2) as batcher:
        batcher.push(EVENT)
        for _ in range(20):
            await asyncio.sleep(0.5)
            await batcher.flush(timeout=0.5)
        assert len(transport.sent) == 3
        assert fates(batcher) == {"unconfirmed": 1}


async def test_it_waits_out_what_the_server_asked_for() -> None:
    transport = FakeTransport(Response(status=429, retry_after=7))
    async with make_batcher(transport, max_batch_events=1) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(1)
        assert await batcher.flush() == result(ok=True, delivered=1)
        assert transport.instants == [0.0, 7.0]
        assert now() == 7.0


# It waits no longer than it says.


async def test_a_timeout_is_exact_and_costs_no_event() -> None:
    transport = FakeTransport(latency=5)
    async with make_batcher(transport) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(0.5)
        assert await batcher.flush(timeout=0.25) == result(ok=False, held=1)
        assert now() == 0.75
        assert await batcher.flush() == result(ok=True, delivered=1)
        assert now() == 5.5


async def test_a_timeout_of_nothing_returns_at_once_and_the_events_leave_at_once() -> None:
    transport = FakeTransport(latency=0.5)
    async with make_batcher(transport, flush_interval=60) as batcher:
        batcher.push(EVENT)
        assert await batcher.flush(timeout=0) == result(ok=False, held=1)
        await asyncio.sleep(1)
        assert transport.instants == [0.0]


async def test_with_nothing_held_it_returns_at_once_and_sends_nothing() -> None:
    transport = FakeTransport()
    async with make_batcher(transport) as batcher:
        turns_before = now()
        assert await batcher.flush() == result(ok=True)
        assert now() == turns_before
        assert transport.sent == []


async def test_it_does_not_wait_for_what_is_pushed_later() -> None:
    transport = FakeTransport(OK, HANG, latency=1)
    batcher = make_batcher(transport, max_batch_events=1)
    await batcher.start()
    batcher.push(EVENT)
    flush = asyncio.create_task(batcher.flush())
    await asyncio.sleep(0.5)
    batcher.push(EVENT)
    assert await flush == result(ok=True, delivered=1)
    assert now() == 1.0
    await batcher.aclose(timeout=0)


async def test_it_waits_for_requests_that_are_under_way_already() -> None:
    transport = FakeTransport(latency=3)
    async with make_batcher(transport, max_batch_events=1) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(1)
        assert (await batcher.flush()).delivered == 1
        assert now() == 3.0


async def test_it_returns_early_when_the_server_refuses_the_key() -> None:
    transport = FakeTransport(otherwise=Response(status=401), latency=0.25)
    async with make_batcher(transport) as batcher:
        batcher.push(EVENT)
        batcher.push(EVENT)
        assert await batcher.flush(timeout=60) == result(ok=False, held=2)
        assert now() == 0.25
        assert await batcher.flush(timeout=60) == result(ok=False, held=2)
        assert now() == 0.25
        assert len(transport.sent) == 1


async def test_it_returns_at_once_when_the_batcher_does_not_run() -> None:
    batcher = make_batcher(FakeTransport())
    batcher.push(EVENT)
    assert await batcher.flush() == result(ok=False, held=1)
    async with batcher:
        pass
    assert await batcher.flush() == result(ok=True)
    assert now() == 0.0


async def test_it_returns_when_closing_settles_what_it_waits_for() -> None:
    transport = FakeTransport(HANG)
    batcher = make_batcher(transport, max_batch_events=1)
    await batcher.start()
    batcher.push(EVENT)
    flush = asyncio.create_task(batcher.flush())
    await asyncio.sleep(0)
    await batcher.aclose(timeout=2)
    assert await flush == result(ok=False, unconfirmed=1)
    assert now() == 2.0


# It tells the truth.


async def test_it_says_what_became_of_each_event() -> None:
    transport = FakeTransport(OK, Response(status=400), RESET)
    async with make_batcher(transport, max_batch_events=1, on_ambiguous="drop") as batcher:
        for _ in range(3):
            batcher.push(EVENT)
        assert await batcher.flush() == result(ok=False, delivered=1, dropped=1, unconfirmed=1)
        assert fates(batcher) == {"delivered": 1, "rejected": 1, "unconfirmed": 1}


async def test_it_counts_only_what_was_held_when_it_was_called() -> None:
    transport = FakeTransport(latency=1)
    async with make_batcher(transport, max_batch_events=2) as batcher:
        batcher.push(EVENT)
        assert (await batcher.flush()).delivered == 1
        batcher.push(EVENT)
        flush = asyncio.create_task(batcher.flush())
        await asyncio.sleep(0)
        batcher.push(EVENT)  # travels in the same request
        assert await flush == result(ok=True, delivered=1)
        assert check_ledger(batcher).delivered == 3
        assert transport.sizes == [1, 2]


async def test_an_event_that_is_evicted_meanwhile_was_dropped() -> None:
    transport = FakeTransport(HANG)
    batcher = make_batcher(
        transport, max_batch_events=1, max_in_flight=1, max_queue_events=2, overflow="drop_oldest"
    )
    await batcher.start()
    batcher.push(EVENT)
    await asyncio.sleep(0.5)
    batcher.push(EVENT)
    flush = asyncio.create_task(batcher.flush(timeout=1))
    await asyncio.sleep(0)
    batcher.push(EVENT)
    assert await flush == result(ok=False, dropped=1, held=1)
    await batcher.aclose(timeout=0)
    assert fates(batcher) == {"evicted": 1, "unconfirmed": 1, "shutdown": 1}


async def test_many_may_flush_at_once() -> None:
    transport = FakeTransport(latency=1)
    async with make_batcher(transport) as batcher:
        batcher.push(EVENT)
        assert (
            await asyncio.gather(*(batcher.flush() for _ in range(10))) == [result(ok=True, delivered=1)] * 10
        )
        assert len(transport.sent) == 1


async def test_a_result_is_true_only_when_all_is_well() -> None:
    assert result(ok=True)
    assert not result(ok=False, held=1)


async def test_its_cancellation_changes_nothing() -> None:
    transport = FakeTransport(latency=1)
    async with make_batcher(transport) as batcher:
        batcher.push(EVENT)
        flush = asyncio.create_task(batcher.flush())
        await asyncio.sleep(0.5)
        flush.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flush
        assert fates(batcher) == {"held": 1}
        await asyncio.sleep(1)
        assert fates(batcher) == {"delivered": 1}
