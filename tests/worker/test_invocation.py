"""Functions that their platform freezes between calls: nothing is left behind but what could not be sent."""

import asyncio
import gc
import logging
import threading
from typing import Any

import anyio
import pytest

from honeyhive_batcher import Batcher
from honeyhive_batcher.runtime.seams import Seams
from tests.fakes import HANG, OK, REFUSED, FakeTransport, fates
from tests.virtual_time import now, run_virtually
from tests.worker.runs import Runs, SlowToOpen

EVENT = {"model": "gpt-4o"}


def over(*transports: FakeTransport, **settings: Any) -> Runs:
    return Runs(*transports, **settings)


def test_each_run_of_a_program_delivers_its_own_and_leaves_no_task() -> None:
    runs = over(FakeTransport(), FakeTransport(), FakeTransport())

    async def call() -> None:
        async with runs.batcher.invocation():
            runs.batcher.push(EVENT)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    for _ in range(3):
        run_virtually(call)
    assert runs.requests == [1, 1, 1]
    assert [transport.closed for transport in runs.transports] == [1, 1, 1]


def test_what_is_pushed_between_two_invocations_goes_with_the_next() -> None:
    runs = over(FakeTransport(), FakeTransport())

    async def call() -> None:
        async with runs.batcher.invocation():
            pass

    run_virtually(call)
    assert runs.batcher.push(EVENT)
    run_virtually(call)
    assert runs.requests == [0, 1]


def test_what_was_surely_not_sent_in_time_is_delivered_once_by_the_next() -> None:
    runs = over(FakeTransport(otherwise=REFUSED), FakeTransport())

    async def call() -> None:
        async with runs.batcher.invocation(timeout=0.5):
            runs.batcher.push(EVENT)
        assert now() == 0.5
        assert runs.batcher.statistics().held == 1

    run_virtually(call)

    async def again() -> None:
        async with runs.batcher.invocation():
            pass

    run_virtually(again)
    assert runs.requests[1] == 1
    assert fates(runs.batcher) == {"delivered": 1}


@pytest.mark.parametrize(("on_ambiguous", "requests"), [("retry", [1, 1]), ("drop", [1, 0])])
def test_what_is_on_its_way_may_have_arrived_and_the_policy_decides(
    on_ambiguous: str, requests: list[int]
) -> None:
    told = list[tuple[str, ...]]()
    runs = over(FakeTransport(HANG), FakeTransport(), on_ambiguous=on_ambiguous, on_unconfirmed=told.append)

    async def call() -> None:
        async with runs.batcher.invocation(timeout=0.5):
            runs.batcher.push(EVENT)
        assert len(told) == (on_ambiguous == "drop")  # at once, because nobody knows when the next is

    run_virtually(call)

    async def again() -> None:
        async with runs.batcher.invocation():
            pass

    run_virtually(again)
    assert runs.requests == requests
    assert [
        event["event_id"] for transport in runs.transports for sent in transport.sent for event in sent.events
    ]
    assert runs.batcher.statistics().held == 0


def test_of_several_at_once_the_last_lets_it_rest() -> None:
    runs = over(SlowToOpen(), FakeTransport())

    async def call(seconds: float) -> None:
        async with runs.batcher.invocation():
            await asyncio.sleep(seconds)
            runs.batcher.push(EVENT)

    async def main() -> None:
        await asyncio.gather(call(1), call(2), call(3))

    run_virtually(main)
    assert runs.requests == [3, 0]
    assert [transport.opened for transport in runs.transports] == [1, 0]


def test_one_that_somebody_started_goes_on_to_run() -> None:
    runs = over(FakeTransport())

    async def main() -> None:
        async with runs.batcher:
            async with runs.batcher.invocation():
                runs.batcher.push(EVENT)
            assert runs.requests == [1]
            runs.batcher.push(EVENT)
            assert await runs.batcher.flush()

    run_virtually(main)
    assert runs.requests == [2]


def test_one_that_is_started_inside_goes_on_to_run() -> None:
    runs = over(FakeTransport())

    async def main() -> None:
        async with runs.batcher.invocation():
            await runs.batcher.start()
        runs.batcher.push(EVENT)
        assert await runs.batcher.flush()
        await runs.batcher.aclose()

    run_virtually(main)
    assert runs.requests == [1]


def test_a_start_while_it_goes_to_rest_begins_anew() -> None:
    first, second = FakeTransport(), FakeTransport()
    runs = over(first, second)

    async def slow() -> Any:
        await asyncio.sleep(0.5)
        return OK

    first.on_close = slow

    async def main() -> None:
        invocation = runs.batcher.invocation()
        await invocation.__aenter__()
        end = asyncio.create_task(invocation.__aexit__(None, None, None))
        await asyncio.sleep(0.1)
        runs.batcher.push(EVENT)
        assert not await runs.batcher.flush()  # nobody runs it just now
        await runs.batcher.start()
        assert now() == 0.5
        assert await runs.batcher.flush()
        await end
        await runs.batcher.aclose()

    run_virtually(main)
    assert runs.requests == [0, 1]


def test_a_close_while_it_goes_to_rest_settles_what_is_held() -> None:
    runs = over(FakeTransport(otherwise=REFUSED))

    async def main() -> None:
        runs.batcher.push(EVENT)
        invocation = runs.batcher.invocation(timeout=0)
        await invocation.__aenter__()
        await asyncio.gather(invocation.__aexit__(None, None, None), runs.batcher.aclose(0))
        assert fates(runs.batcher) == {"shutdown": 1}

    run_virtually(main)


def test_a_close_inside_is_respected() -> None:
    runs = over(FakeTransport())

    async def main() -> None:
        async with runs.batcher.invocation():
            runs.batcher.push(EVENT)
            await runs.batcher.aclose()
        assert not runs.batcher.push(EVENT)

    run_virtually(main)
    assert runs.requests == [1]


def test_an_exception_of_the_function_passes_after_the_flush() -> None:
    runs = over(FakeTransport())

    async def main() -> None:
        async with runs.batcher.invocation():
            runs.batcher.push(EVENT)
            raise ValueError("the function's own")

    with pytest.raises(ValueError, match="own"):
        run_virtually(main)
    assert runs.requests == [1]


def test_whoever_cancels_the_function_does_not_cut_the_flush_short() -> None:
    runs = over(FakeTransport(latency=1.0))

    async def function() -> None:
        async with runs.batcher.invocation():
            runs.batcher.push(EVENT)

    async def main() -> None:
        task = asyncio.create_task(function())
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with anyio.move_on_after(0.5) as scope:
            await function()
        assert scope.cancel_called

    runs._waiting.append(FakeTransport(latency=1.0))
    run_virtually(main)
    assert fates(runs.batcher) == {"delivered": 2}


def test_an_invocation_whose_start_is_cancelled_has_not_begun() -> None:
    runs = over(SlowToOpen(), FakeTransport())

    async def function() -> None:
        async with runs.batcher.invocation():
            raise AssertionError

    async def main() -> None:
        task = asyncio.create_task(function())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        async with runs.batcher.invocation():
            runs.batcher.push(EVENT)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtually(main)
    assert runs.requests == [0, 1]


def test_one_that_runs_in_another_loop_is_flushed_and_goes_on() -> None:
    transport = FakeTransport()
    batcher = Batcher(api_key="hh_test", _seams=Seams(transport=lambda _config: transport), flush_interval=60)
    is_up, is_over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with batcher:
            is_up.set()
            await asyncio.to_thread(is_over.wait)

    async def main() -> None:
        async with batcher.invocation(timeout=10):
            batcher.push(EVENT)
        assert len(transport.sent) == 1

    home = threading.Thread(target=asyncio.run, args=(serve(),))
    home.start()
    is_up.wait()
    asyncio.run(main())
    assert repr(batcher).startswith("<Batcher open")
    is_over.set()
    home.join()


@pytest.mark.parametrize("timeout", [float("nan"), -1.0, 0])
def test_a_time_that_is_none_does_not_wait(timeout: float) -> None:
    runs = over(FakeTransport(HANG))

    async def main() -> None:
        async with runs.batcher.invocation(timeout=timeout):
            runs.batcher.push(EVENT)
        assert now() == 0

    run_virtually(main)
    assert runs.batcher.statistics().held == 1
    run_virtually(runs.batcher.aclose)


def test_a_batcher_at_rest_with_nothing_held_may_be_forgotten() -> None:
    runs = over(FakeTransport())

    async def main() -> None:
        async with runs.batcher.invocation():
            runs.batcher.push(EVENT)

    run_virtually(main)
    del runs.batcher
    gc.collect()  # warns of nothing: pytest would fail


def test_what_is_left_at_the_end_of_the_program_is_told(caplog: pytest.LogCaptureFixture) -> None:
    runs = over(FakeTransport(otherwise=REFUSED))

    async def main() -> None:
        async with runs.batcher.invocation(timeout=0.1):
            runs.batcher.push(EVENT)

    run_virtually(main)
    with caplog.at_level(logging.WARNING):
        runs.batcher._lifecycle.give_up()
    assert "1 events still held 0 were delivered" in caplog.text


def test_the_lifespan_and_the_cleanup_context_run_it_as_long_as_the_application() -> None:
    runs = over(FakeTransport(), FakeTransport())
    batcher = runs.batcher

    async def main() -> None:
        async with batcher.lifespan(object()) as state:
            assert state == {"batcher": batcher}
            batcher.push(EVENT)
        context = batcher.cleanup_ctx(object())
        await anext(context)
        batcher.push(EVENT)
        with pytest.raises(StopAsyncIteration):
            await anext(context)

    run_virtually(main)
    assert runs.requests == [1, 1]
