"""When requests are sent: by age, by size, and again after a failure."""

import asyncio
import functools
import itertools

import pytest

from honeyhive_batcher import Batcher
from honeyhive_batcher.core.model import Response
from honeyhive_batcher.runtime.seams import Seams
from tests.fakes import HANG, OK, REFUSED, RESET, FakeTransport, check_ledger, fates, make_batcher
from tests.virtual_time import now, run_virtually, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

EVENT = {"model": "gpt-4o"}


# By age and by size.


async def test_an_event_waits_for_others_as_long_as_flush_interval() -> None:
    transport = FakeTransport()
    async with make_batcher(transport, flush_interval=0.7) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(5)
        assert transport.instants == [0.7]
        assert fates(batcher) == {"delivered": 1}


async def test_the_oldest_event_decides_when_a_batch_leaves() -> None:
    transport = FakeTransport()
    async with make_batcher(transport) as batcher:
        await asyncio.sleep(0.25)
        batcher.push(EVENT)
        await asyncio.sleep(0.5)
        batcher.push(EVENT)
        await asyncio.sleep(5)
        assert transport.instants == [1.25]
        assert transport.sizes == [2]


async def test_a_full_batch_leaves_at_once_and_the_rest_by_its_own_age() -> None:
    transport = FakeTransport()
    async with make_batcher(transport, max_batch_events=3) as batcher:
        await asyncio.sleep(2)
        for _ in range(4):
            batcher.push(EVENT)
        await asyncio.sleep(5)
        assert transport.instants == [2.0, 3.0]
        assert transport.sizes == [3, 1]


async def test_a_batch_that_is_full_by_bytes_leaves_at_once() -> None:
    transport = FakeTransport()
    async with make_batcher(transport, max_batch_bytes=1024) as batcher:
        for _ in range(3):
            batcher.push({"model": "m" * 400})
        await until(lambda: transport.sent)
        assert transport.instants == [0.0]
        assert transport.sizes == [2]


async def test_without_an_interval_an_event_leaves_at_once() -> None:
    transport = FakeTransport()
    async with make_batcher(transport, flush_interval=0) as batcher:
        for _ in range(3):
            await asyncio.sleep(1)
            batcher.push(EVENT)
        await asyncio.sleep(1)
        assert transport.instants == [1.0, 2.0, 3.0]


async def test_what_was_pushed_before_the_start_is_held_and_sent_after_it() -> None:
    transport = FakeTransport()
    batcher = make_batcher(transport)
    assert batcher.push(EVENT)
    await asyncio.sleep(10)
    assert fates(batcher) == {"held": 1}
    async with batcher:
        await asyncio.sleep(1)
        assert transport.instants == [10.0]
        assert fates(batcher) == {"delivered": 1}


async def test_no_more_than_max_in_flight_requests_are_under_way() -> None:
    transport = FakeTransport(latency=2)
    async with make_batcher(transport, max_in_flight=2, max_batch_events=1) as batcher:
        for _ in range(5):
            batcher.push(EVENT)
        await asyncio.sleep(1)
        assert batcher.statistics().in_flight == 2
        await asyncio.sleep(10)
        assert transport.instants == [0.0, 0.0, 2.0, 2.0, 4.0]
        assert batcher.statistics().in_flight == 0


async def test_nothing_of_the_context_of_the_start_reaches_the_requests() -> None:
    """A session bound where a batcher happens to be started is none of the requests' business."""
    transport = FakeTransport()
    batcher = make_batcher(transport, flush_interval=0)
    other = make_batcher(FakeTransport(), flush_interval=0)

    async def push_to_the_other() -> Response:
        other.push(EVENT)
        return OK

    transport.script.append(push_to_the_other)
    async with other:
        with other.session(session_name="outer") as session:
            await batcher.start()
        assert batcher.push(EVENT)
        assert (await batcher.flush()).ok
        await batcher.aclose()
        assert not session.has_events


# Again, after a failure.


async def test_retries_leave_at_the_instants_of_the_back_off() -> None:
    unavailable = Response(status=503)
    transport = FakeTransport(unavailable, unavailable, unavailable)
    async with make_batcher(transport, max_batch_events=1) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(20)
        assert transport.instants == [0.0, 0.5, 2.5, 6.5]
        assert fates(batcher) == {"delivered": 1}
        assert batcher.statistics().retries == 3


async def test_jitter_takes_its_part_of_the_back_off() -> None:
    transport = FakeTransport(Response(status=503), Response(status=503))
    async with make_batcher(transport, jitter=0.5, max_batch_events=1) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(20)
        assert transport.instants == [0.0, 0.25, 1.75]


async def test_a_batch_is_given_up_after_max_retries() -> None:
    transport = FakeTransport(otherwise=RESET)
    async with make_batcher(transport, max_batch_events=1, max_retries=2) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(2.4)
        assert fates(batcher) == {"held": 1}
        await asyncio.sleep(0.2)
        assert transport.instants == [0.0, 0.5, 2.5]
        assert fates(batcher) == {"unconfirmed": 1}


async def test_an_outage_costs_no_event_that_never_left_however_long_it_lasts() -> None:
    transport = FakeTransport(otherwise=REFUSED)
    async with make_batcher(transport, max_batch_events=1, max_retries=0, max_elapsed=3) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(3600)
        assert transport.instants[:6] == [0.0, 0.5, 2.5, 6.5, 14.5, 30.5]
        assert fates(batcher) == {"held": 1}
        transport.otherwise = OK
        await asyncio.sleep(30)
        assert fates(batcher) == {"delivered": 1}


async def test_retry_after_is_a_floor_for_the_whole_endpoint() -> None:
    transport = FakeTransport(Response(status=429, retry_after=7))
    async with make_batcher(transport, max_batch_events=1) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(1)
        batcher.push(EVENT)
        await asyncio.sleep(20)
        assert transport.instants == [0.0, 7.0, 7.0]
        assert fates(batcher) == {"delivered": 2}


async def test_an_ambiguous_failure_is_tried_again_with_the_same_bytes() -> None:
    transport = FakeTransport(RESET)
    async with make_batcher(transport, max_batch_events=2) as batcher:
        batcher.push(EVENT)
        batcher.push(EVENT)
        await asyncio.sleep(20)
        assert transport.instants == [0.0, 0.5]
        first, second = transport.sent
        assert first.request.body == second.request.body
        assert fates(batcher) == {"delivered": 2}


async def test_an_ambiguous_failure_is_the_end_when_duplicates_are_not_wanted() -> None:
    transport = FakeTransport(RESET, REFUSED)
    async with make_batcher(transport, max_batch_events=1, on_ambiguous="drop") as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(1)
        assert fates(batcher) == {"unconfirmed": 1}
        batcher.push(EVENT)  # never left: tried again all the same
        await asyncio.sleep(20)
        assert fates(batcher) == {"unconfirmed": 1, "delivered": 1}
        assert len(transport.sent) == 3


async def test_an_endpoint_that_refuses_the_key_is_asked_once_a_minute_and_nothing_is_lost() -> None:
    transport = FakeTransport(Response(status=401), Response(status=401))
    async with make_batcher(transport, max_batch_events=1) as batcher:
        batcher.push(EVENT)
        batcher.push(EVENT)
        await asyncio.sleep(1)
        batcher.push(EVENT)
        assert batcher.statistics().endpoint == "held"
        await asyncio.sleep(300)
        assert transport.instants[2] == 60.0
        assert fates(batcher) == {"delivered": 3}
        assert batcher.statistics().endpoint == "healthy"


async def test_while_one_request_hangs_others_are_sent() -> None:
    transport = FakeTransport(HANG)
    batcher = make_batcher(transport, max_batch_events=1)
    await batcher.start()
    for _ in range(3):
        batcher.push(EVENT)
    await asyncio.sleep(1)
    assert fates(batcher) == {"delivered": 2, "held": 1}
    await batcher.aclose(timeout=0)
    assert fates(batcher) == {"delivered": 2, "unconfirmed": 1}


# A transport of somebody else's.


async def test_a_transport_that_raises_counts_as_an_ambiguous_failure() -> None:
    transport = FakeTransport(ZeroDivisionError("secret"))
    async with make_batcher(transport, max_batch_events=1) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(20)
        assert transport.instants == [0.0, 0.5]
        assert fates(batcher) == {"delivered": 1}
        assert batcher.statistics().last_error == "the transport raised ZeroDivisionError"


async def test_a_transport_that_says_cancelled_by_itself_counts_as_an_ambiguous_failure() -> None:
    transport = FakeTransport(asyncio.CancelledError())
    async with make_batcher(transport, max_batch_events=1) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(20)
        assert transport.instants == [0.0, 0.5]
        assert fates(batcher) == {"delivered": 1}


async def test_send_tasks_that_somebody_cancels_are_ambiguous_and_tried_again() -> None:
    transport = FakeTransport(HANG)
    async with make_batcher(transport, max_batch_events=1) as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(0.25)
        _cancel("honeyhive_batcher.send")
        await asyncio.sleep(20)
        assert transport.instants == [0.0, 0.75]
        assert fates(batcher) == {"delivered": 1}


async def test_send_tasks_that_somebody_cancels_are_the_end_when_duplicates_are_not_wanted() -> None:
    transport = FakeTransport(HANG)
    async with make_batcher(transport, max_batch_events=1, on_ambiguous="drop") as batcher:
        batcher.push(EVENT)
        await asyncio.sleep(0.25)
        _cancel("honeyhive_batcher.send")
        await asyncio.sleep(20)
        assert fates(batcher) == {"unconfirmed": 1}


async def test_send_tasks_that_are_cancelled_before_their_first_step_have_surely_sent_nothing() -> None:
    transport = FakeTransport()
    async with make_batcher(transport, max_batch_events=1, on_ambiguous="drop") as batcher:
        batcher.push(EVENT)
        await until(lambda: _cancel("honeyhive_batcher.send"))
        assert transport.sent == []
        await asyncio.sleep(20)
        assert transport.instants == [0.5]
        assert fates(batcher) == {"delivered": 1}
        assert check_ledger(batcher).retries == 1


def _cancel(name: str) -> int:
    """Cancel the tasks of this name, and return how many there were."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == name]
    for task in tasks:
        task.cancel()
    return len(tasks)


def test_a_push_in_the_midst_of_the_workers_turn_is_never_overlooked() -> None:
    """As by a destructor or a signal; here the clock does it, once at each of its readings."""
    for reading in itertools.count():
        if not run_virtually(functools.partial(_push_at_a_reading_of_the_clock, reading)):
            break
    assert reading > 5


async def _push_at_a_reading_of_the_clock(reading: int) -> bool:
    """Fill a batch at that reading; return whether it was reached before the batch was due by its age."""
    loop = asyncio.get_running_loop()
    readings = itertools.count()
    pushed_at: list[float] = []

    def clock() -> float:
        if next(readings) == reading:
            pushed_at.append(loop.time())
            assert batcher.push(EVENT)
        return loop.time()

    transport = FakeTransport()
    seams = Seams(clock=clock, jitter=lambda: 1.0, transport=lambda _config: transport)
    batcher: Batcher = Batcher(api_key="hh_test", max_batch_events=2, _seams=seams)
    async with batcher:
        await asyncio.sleep(0.5)
        assert batcher.push(EVENT)
        await asyncio.sleep(5)
        if not pushed_at:
            reading = -1  # not while it closes
            return False
        if pushed_at[0] <= 0.5:
            assert transport.instants == [0.5]
        else:  # before or after the first event was taken, in the turn in which it was due
            assert transport.instants in ([1.5], [1.5, 2.5])
        assert fates(batcher) == {"delivered": 2}
    return True


async def test_time_is_the_loops() -> None:
    await asyncio.sleep(3600.25)
    assert now() == 3600.25
