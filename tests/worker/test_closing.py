"""Closing delivers what it can, in bounded time, whoever cancels whom, and says what was lost."""

import asyncio
import logging
from typing import Any

import anyio
import pytest

from honeyhive_batcher import Admission, Batcher
from honeyhive_batcher.core.model import Response
from tests.fakes import HANG, OK, RESET, Behaviour, FakeTransport, check_ledger, fates, make_batcher
from tests.virtual_time import now, virtual_loop

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

EVENT = {"model": "gpt-4o"}


async def started(transport: FakeTransport, *, events: int = 0, **settings: Any) -> Batcher:
    batcher = make_batcher(transport, **settings)
    await batcher.start()
    for _ in range(events):
        assert batcher.push(EVENT)
    return batcher


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# It delivers.


async def test_it_delivers_what_is_held_without_waiting_for_more(caplog: pytest.LogCaptureFixture) -> None:
    transport = FakeTransport(latency=0.5)
    batcher = await started(transport, events=5, max_batch_events=2)
    await batcher.aclose()
    assert fates(batcher) == {"delivered": 5}
    assert transport.instants == [0.0, 0.0, 0.0]
    assert now() == 0.5
    assert (transport.opened, transport.closed) == (1, 1)
    assert warnings(caplog) == []


async def test_it_delivers_more_than_fits_under_way_at_once() -> None:
    batcher = await started(FakeTransport(latency=0.5), events=7, max_batch_events=1, max_in_flight=2)
    await batcher.aclose()
    assert fates(batcher) == {"delivered": 7}
    assert now() == 2.0


async def test_it_interrupts_the_back_off() -> None:
    transport = FakeTransport(RESET)
    batcher = await started(transport, events=1, max_batch_events=1, backoff_base=100)
    await asyncio.sleep(1)
    await batcher.aclose()
    assert transport.instants == [0.0, 1.0]
    assert fates(batcher) == {"delivered": 1}


async def test_it_tries_again_as_long_as_there_is_time() -> None:
    transport = FakeTransport(Response(status=503), Response(status=503))
    batcher = await started(transport, events=1)
    await batcher.aclose(timeout=10)
    assert transport.instants == [0.0, 0.5, 2.5]
    assert fates(batcher) == {"delivered": 1}
    assert now() == 2.5


async def test_leaving_the_block_with_an_error_delivers_too_and_the_error_comes_out() -> None:
    batcher = make_batcher(FakeTransport())

    async def fail() -> None:
        async with batcher:
            batcher.push(EVENT)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert fates(batcher) == {"delivered": 1}


# In bounded time.


async def test_a_server_that_hangs_costs_the_timeout_exactly_and_the_rest_is_accounted_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = FakeTransport(otherwise=HANG)
    batcher = await started(transport, events=5, max_batch_events=1, max_in_flight=3)
    await asyncio.sleep(1)
    await batcher.aclose(timeout=2)
    assert now() == 3.0
    assert fates(batcher) == {"unconfirmed": 3, "shutdown": 2}
    assert transport.cancelled == 3
    assert transport.closed == 1
    (line,) = warnings(caplog)
    for part in ("5 events still held", "0 were delivered", "2 dropped", "3 unconfirmed"):
        assert part in line


async def test_without_a_timeout_the_setting_counts() -> None:
    batcher = await started(FakeTransport(HANG), events=1, shutdown_timeout=7)
    await batcher.aclose()
    assert now() == 7.0


async def test_a_timeout_of_nothing_gives_everything_up_at_once() -> None:
    transport = FakeTransport()
    batcher = await started(transport, events=3)
    await batcher.aclose(timeout=0)
    assert now() == 0.0
    assert fates(batcher) in ({"shutdown": 3}, {"unconfirmed": 3})


async def test_it_does_not_wait_for_a_retry_that_comes_too_late() -> None:
    transport = FakeTransport(Response(status=429, retry_after=60), latency=0.5)
    batcher = await started(transport, events=1)
    await batcher.aclose(timeout=5)
    assert now() == 0.5
    assert fates(batcher) == {"shutdown": 1}


async def test_it_does_not_wait_for_a_server_that_refuses_the_key(caplog: pytest.LogCaptureFixture) -> None:
    batcher = await started(FakeTransport(otherwise=Response(status=401)), events=1)
    await batcher.aclose(timeout=5)
    assert now() == 0.0
    assert fates(batcher) == {"shutdown": 1}
    assert [line for line in warnings(caplog) if "HTTP 401" in line and "HH_API_KEY" in line]


async def test_the_nearest_of_several_deadlines_counts() -> None:
    batcher = await started(FakeTransport(HANG), events=1)
    late = asyncio.create_task(batcher.aclose(timeout=10))
    await asyncio.sleep(1)
    early = asyncio.create_task(batcher.aclose(timeout=2))
    await asyncio.sleep(1)
    later = asyncio.create_task(batcher.aclose(timeout=20))
    await asyncio.gather(late, early, later)
    assert now() == 3.0
    assert fates(batcher) == {"unconfirmed": 1}


async def test_a_transport_that_hangs_when_closed_gets_a_second(caplog: pytest.LogCaptureFixture) -> None:
    transport = FakeTransport()
    transport.on_close = HANG
    batcher = await started(transport, events=1)
    await batcher.aclose()
    assert now() == 1.0
    assert fates(batcher) == {"delivered": 1}
    assert len(warnings(caplog)) == 1


async def test_a_transport_that_raises_when_closed_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    transport = FakeTransport()
    transport.on_close = ZeroDivisionError("secret")
    batcher = await started(transport, events=1)
    await batcher.aclose()
    assert fates(batcher) == {"delivered": 1}
    assert len(warnings(caplog)) == 1
    assert "secret" not in caplog.text


async def test_a_request_that_will_not_be_cancelled_holds_closing_up_for_a_second_at_most() -> None:
    transport = FakeTransport(Behaviour.IGNORE_CANCELLATION)
    batcher = await started(transport, events=1)
    await batcher.aclose(timeout=2)
    assert now() <= 4.0
    assert fates(batcher) == {"unconfirmed": 1}
    assert transport.closed == 1
    await asyncio.sleep(60)
    assert fates(batcher) == {"unconfirmed": 1}


# Again, and without a run.


async def test_closing_twice_is_as_good_as_once() -> None:
    transport = FakeTransport()
    batcher = await started(transport, events=1)
    await batcher.aclose()
    await batcher.aclose()
    assert transport.closed == 1
    assert fates(batcher) == {"delivered": 1}


async def test_closing_what_never_ran_gives_up_what_it_held_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = FakeTransport()
    batcher = make_batcher(transport)
    batcher.push(EVENT)
    await batcher.aclose()
    await batcher.aclose()
    assert fates(batcher) == {"shutdown": 1}
    assert transport.opened == 0
    assert len(warnings(caplog)) == 1
    assert batcher.push(EVENT) is Admission.CLOSED


async def test_pushes_after_the_end_are_refused_and_counted_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    batcher = await started(FakeTransport())
    await batcher.aclose()
    assert [batcher.push(EVENT) for _ in range(100)] == [Admission.CLOSED] * 100
    assert check_ledger(batcher).refused == {"closed": 100}
    assert len(warnings(caplog)) == 1


async def test_pushes_while_closing_are_refused() -> None:
    batcher = await started(FakeTransport(latency=1), events=1)
    closing = asyncio.create_task(batcher.aclose())
    await asyncio.sleep(0.5)
    assert batcher.push(EVENT) is Admission.CLOSED
    await closing
    assert fates(batcher) == {"delivered": 1}


# Whoever cancels whom: its caller.


async def test_a_caller_that_is_cancelled_gets_its_cancellation_when_all_is_delivered() -> None:
    batcher = await started(FakeTransport(latency=2), events=3, max_batch_events=1)
    closing = asyncio.create_task(batcher.aclose())
    await asyncio.sleep(0.5)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert now() == 2.0
    assert fates(batcher) == {"delivered": 3}


async def test_a_caller_that_is_cancelled_again_and_again_gets_no_further() -> None:
    batcher = await started(FakeTransport(latency=2), events=1)
    closing = asyncio.create_task(batcher.aclose())
    while not closing.done():
        await asyncio.sleep(0.125)
        closing.cancel()
    assert closing.cancelled()
    assert now() <= 2.125
    assert fates(batcher) == {"delivered": 1}


async def test_a_caller_that_was_cancelled_before_still_delivers() -> None:
    batcher = await started(FakeTransport(latency=2), events=1)

    async def close() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await batcher.aclose()

    task = asyncio.create_task(close())
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert fates(batcher) == {"delivered": 1}


async def test_a_cancel_scope_around_it_does_not_cut_it_short() -> None:
    batcher = make_batcher(FakeTransport(latency=2))
    with anyio.move_on_after(0.5) as scope:
        async with batcher:
            batcher.push(EVENT)
            await asyncio.sleep(60)
    assert scope.cancelled_caught
    assert now() == 2.5
    assert fates(batcher) == {"delivered": 1}


async def test_a_scope_that_is_cancelled_while_it_closes_is_still_cancelled_afterwards() -> None:
    batcher = await started(FakeTransport(latency=2), events=1)
    with anyio.move_on_after(0.5) as scope:
        await batcher.aclose()
        assert now() == 2.0
        await anyio.sleep(60)
    assert scope.cancelled_caught
    assert now() == 2.0
    assert fates(batcher) == {"delivered": 1}


async def test_a_timeout_around_it_does_not_cut_it_short() -> None:
    batcher = await started(FakeTransport(latency=2), events=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await batcher.aclose()
    assert now() == 2.0
    assert fates(batcher) == {"delivered": 1}


async def test_a_failed_task_group_around_it_does_not_cut_it_short() -> None:
    batcher = await started(FakeTransport(latency=2), events=1)

    async def fail() -> None:
        await asyncio.sleep(0.5)
        _ = 1 / 0

    async def close() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            await batcher.aclose()

    with pytest.raises(ExceptionGroup):
        await close()
    assert now() == 2.0
    assert fates(batcher) == {"delivered": 1}


async def test_a_cancelled_caller_waits_no_longer_than_the_timeout() -> None:
    batcher = await started(FakeTransport(HANG), events=1)
    closing = asyncio.create_task(batcher.aclose(timeout=3))
    await asyncio.sleep(0.5)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert now() == 3.0


async def test_another_closing_that_is_cancelled_disturbs_nobody() -> None:
    batcher = await started(FakeTransport(latency=2), events=1)
    first = asyncio.create_task(batcher.aclose())
    second = asyncio.create_task(batcher.aclose())
    await asyncio.sleep(0.5)
    second.cancel()
    await first
    assert now() == 2.0
    await asyncio.wait([second])
    assert second.cancelled()


# Whoever cancels whom: the tasks of the batcher.


def cancel_all() -> None:
    """Do what uvicorn does at the second Ctrl-C and `asyncio.run` at its end."""
    for task in sorted(asyncio.all_tasks(), key=asyncio.Task.get_name):  # requests, then the worker
        if task.get_name().startswith("honeyhive_batcher"):
            task.cancel()


async def test_when_all_tasks_are_cancelled_what_is_held_is_delivered_and_the_run_ends() -> None:
    transport = FakeTransport(latency=2)
    batcher = await started(transport, events=3, flush_interval=60)
    await asyncio.sleep(1)
    cancel_all()
    await asyncio.sleep(60)
    assert transport.instants == [1.0]
    assert transport.closed == 1
    assert fates(batcher) == {"delivered": 3}
    assert batcher.push(EVENT) is Admission.CLOSED
    await batcher.aclose()


async def test_requests_that_are_cancelled_with_all_tasks_are_sent_again() -> None:
    transport = FakeTransport(latency=2)
    batcher = await started(transport, events=1, max_batch_events=1)
    await asyncio.sleep(1)
    cancel_all()
    await asyncio.sleep(60)
    assert transport.instants == [0.0, 1.0]
    assert fates(batcher) == {"delivered": 1}
    await batcher.aclose()


async def test_when_all_tasks_are_cancelled_a_server_that_hangs_costs_shutdown_timeout() -> None:
    transport = FakeTransport(otherwise=HANG)
    batcher = await started(transport, events=2, max_batch_events=1, shutdown_timeout=3)
    await asyncio.sleep(1)
    closing = asyncio.create_task(batcher.aclose(timeout=60))
    await asyncio.sleep(1)
    cancel_all()
    await closing
    assert now() == 5.0
    assert fates(batcher) == {"unconfirmed": 2}


async def test_tasks_that_are_cancelled_again_and_again_still_end_in_time() -> None:
    transport = FakeTransport(otherwise=HANG)
    batcher = await started(transport, events=2, max_batch_events=1, shutdown_timeout=3)
    closing = asyncio.create_task(batcher.aclose(timeout=60))
    while not closing.done():
        await asyncio.sleep(0.25)
        cancel_all()
    assert now() <= 3.75
    assert sum(fates(batcher).values()) == 2
    assert transport.closed == 1


async def test_an_end_that_is_cancelled_while_it_waits_for_a_request_lets_go_of_the_transport() -> None:
    transport = FakeTransport(Behaviour.IGNORE_CANCELLATION)
    batcher = await started(transport, events=1, flush_interval=0)
    await asyncio.sleep(1)
    closing = asyncio.create_task(batcher.aclose(timeout=1))
    await asyncio.sleep(1.5)
    assert transport.closed == 0
    cancel_all()
    await closing
    assert now() == 2.5
    assert transport.closed == 1
    await asyncio.sleep(60)


async def test_a_run_whose_task_is_cancelled_before_its_first_step_sends_all_the_same() -> None:
    transport = FakeTransport()
    batcher = make_batcher(transport)
    batcher.push(EVENT)
    await batcher.start()
    cancel_all()
    await batcher.aclose()
    assert (transport.opened, transport.closed) == (1, 1)
    assert fates(batcher) == {"delivered": 1}


async def test_closing_after_a_loss_does_not_spin() -> None:
    """The line about a loss is due at once, and not written before the end."""
    batcher = await started(FakeTransport(HANG), events=1)
    closing = asyncio.create_task(batcher.aclose(timeout=3600))
    await asyncio.sleep(1)
    batcher.push(EVENT)
    turns = virtual_loop().turns
    await closing
    assert virtual_loop().turns - turns < 20


async def test_closing_takes_few_turns_of_the_loop() -> None:
    batcher = await started(FakeTransport(OK), events=1)
    await asyncio.sleep(5)
    turns = virtual_loop().turns
    await batcher.aclose()
    assert virtual_loop().turns - turns < 12
