"""A start that is cut off, a closing that is, and a program that goes on after a Ctrl-C."""

import asyncio
import gc
import threading
from collections.abc import Coroutine
from typing import Any
from unittest import mock

import pytest

from honeyhive_batcher import Admission, Batcher
from honeyhive_batcher.core.batching import Groups
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.model import Attempt, Reply
from honeyhive_batcher.runtime.seams import Seams
from tests.fakes import HANG, FakeTransport, fates
from tests.virtual_time import run_virtually
from tests.worker.runs import Runs, SlowToOpen, die

EVENT = {"model": "gpt-4o"}


# A start that is cancelled.


def test_closing_while_a_start_is_cancelled_closes_and_the_next_start_runs() -> None:
    runs = Runs(SlowToOpen(), FakeTransport())
    batcher = runs.batcher

    async def main() -> None:
        batcher.push(EVENT)
        start = asyncio.create_task(batcher.start())
        await asyncio.sleep(0)
        start.cancel()
        await batcher.aclose()
        assert fates(batcher) == {"shutdown": 1}
        assert batcher.push(EVENT) is Admission.CLOSED
        await asyncio.wait((start,))
        for _ in range(2):  # the second finds it running
            await batcher.start()
        batcher.push(EVENT)
        assert await batcher.flush()
        await batcher.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtually(main)
    assert [transport.closed for transport in runs.transports] == [1, 1]


def test_a_start_that_waits_for_one_that_is_cancelled_begins_itself() -> None:
    runs = Runs(SlowToOpen(), FakeTransport())

    async def main() -> None:
        first = asyncio.create_task(runs.batcher.start())
        second = asyncio.create_task(runs.batcher.start())
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await second
        runs.batcher.push(EVENT)
        assert await runs.batcher.flush()
        await runs.batcher.aclose()

    run_virtually(main)
    assert runs.requests == [0, 1]


def test_a_loop_that_died_during_a_start_has_begun_nothing() -> None:
    runs = Runs(SlowToOpen(), FakeTransport())
    runs.batcher.push(EVENT)
    starts = list[asyncio.Task[Any]]()

    async def begin() -> None:
        starts.append(asyncio.create_task(runs.batcher.start()))
        await asyncio.sleep(0)

    async def go_on() -> None:
        async with runs.batcher:
            del starts[:]  # what becomes of the old one now concerns nobody
            gc.collect()
            assert await runs.batcher.flush()

    die(begin())
    starts[0]._log_destroy_pending = False  # type: ignore[attr-defined]  # it is the program's own task
    asyncio.run(go_on())
    assert runs.requests == [0, 1]


# A closing that is cut off.


def test_a_run_that_died_while_it_closed_is_gone_on_with_by_an_open_one() -> None:
    runs = Runs(FakeTransport(HANG), FakeTransport(), backoff_base=0.01)
    closings = list[asyncio.Task[None]]()

    async def begin() -> None:
        await runs.batcher.start()
        runs.batcher.push(EVENT)
        closings.append(asyncio.create_task(runs.batcher.aclose()))
        closings[0]._log_destroy_pending = False  # type: ignore[attr-defined]  # it is the program's own
        await asyncio.sleep(0.01)

    async def go_on() -> None:
        await runs.batcher.start()
        assert runs.batcher.push(EVENT)
        assert (await runs.batcher.flush()).delivered == 2
        assert runs.batcher.push(EVENT)
        await runs.batcher.start()
        await runs.batcher.aclose()

    die(begin())
    assert runs.batcher.push(EVENT) is Admission.CLOSED
    asyncio.run(go_on())
    assert fates(runs.batcher) == {"delivered": 3}


def test_a_time_in_which_nothing_ran_counts_for_no_retry() -> None:
    clock = [1000.0]
    transports = iter([FakeTransport(HANG), FakeTransport()])
    batcher = Batcher(
        api_key="hh_test",
        max_elapsed=120,
        backoff_base=0.01,
        _seams=Seams(transport=lambda _config: next(transports), clock=lambda: clock[0]),
    )

    async def begin() -> None:
        await batcher.start()
        batcher.push(EVENT)
        assert (await batcher.flush(timeout=0.01)).held == 1

    async def go_on() -> None:
        await batcher.start()
        for _ in range(100):
            clock[0] += 0.01
            batcher._lifecycle.intake.wake()
            await asyncio.sleep(0)
        await batcher.aclose()

    die(begin())
    clock[0] += 3600.0
    asyncio.run(go_on())
    assert fates(batcher) == {"delivered": 1}


def test_two_threads_may_close_what_nobody_runs() -> None:
    for _ in range(50):
        lost = list[str]()

        def on_dropped(_: object, reason: str, lost: list[str] = lost) -> None:
            lost.append(reason)

        batcher = Batcher(api_key="hh_test", on_dropped=on_dropped)
        batcher.push(EVENT)
        together = threading.Barrier(2)

        def close(batcher: Batcher = batcher, together: threading.Barrier = together) -> None:
            together.wait()
            asyncio.run(batcher.aclose())

        threads = [threading.Thread(target=close) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert fates(batcher) == {"shutdown": 1}
        assert lost == ["shutdown"]


def test_closing_from_another_thread_during_a_start_waits_for_the_run() -> None:
    opening, closing, closed = (threading.Event() for _ in range(3))

    class Opening(FakeTransport):
        async def open(self) -> None:
            await super().open()
            opening.set()
            await asyncio.to_thread(closing.wait, 10)
            await asyncio.sleep(0.01)

    runs = Runs(Opening())
    runs.batcher.push(EVENT)

    async def start() -> None:
        await runs.batcher.start()
        await asyncio.to_thread(closed.wait, 10)

    async def close() -> None:
        task = asyncio.create_task(runs.batcher.aclose())
        await asyncio.sleep(0)
        closing.set()
        await task
        closed.set()

    home = threading.Thread(target=lambda: asyncio.run(start()))
    home.start()
    assert opening.wait(10)
    asyncio.run(close())
    home.join()
    assert fates(runs.batcher) == {"delivered": 1}


# A program that goes on after a Ctrl-C.


def interrupting(owner: Any, name: str, *, after: bool) -> Any:
    """Return a patch with which a Ctrl-C strikes the first time that a method is called, or has returned."""
    method = getattr(owner, name)
    strikes = iter([None])

    def interrupted(*arguments: Any, **more: Any) -> Any:
        result = method(*arguments, **more) if after else None
        if (not after or result is not None) and next(strikes, strikes) is None:
            raise KeyboardInterrupt
        return result if after else method(*arguments, **more)

    return mock.patch.object(owner, name, interrupted)


def interrupted_run(main: Coroutine[Any, Any, None]) -> None:
    """Run in a loop that a Ctrl-C ends, and that nobody tidies up."""
    with pytest.raises(KeyboardInterrupt):
        die(main)
    gc.collect()


@pytest.mark.parametrize("with_session", [False, True])
def test_what_an_interrupted_cut_took_is_unconfirmed_and_the_rest_goes_on(*, with_session: bool) -> None:
    runs = Runs(FakeTransport(), FakeTransport(), flush_interval=0.01)
    batcher = runs.batcher
    session = batcher.session(session_name="one") if with_session else None

    async def begin() -> None:
        await batcher.start()
        batcher.push(EVENT, session=session)
        await asyncio.sleep(3600)

    async def go_on() -> None:
        async with batcher:
            batcher.push(EVENT, session=session)
            if session is not None:
                session.outputs = {"answer": 1}
                session.close()
            assert (await batcher.flush()).held == 0

    with interrupting(Groups, "cut", after=True):
        interrupted_run(begin())
    asyncio.run(go_on())
    assert fates(batcher) == {"unconfirmed": 1, "delivered": 2 if with_session else 1}
    assert batcher.statistics().held_bytes == 0


@pytest.mark.parametrize("after", [False, True])
def test_an_answer_that_an_interruption_hid_is_not_forgotten(*, after: bool) -> None:
    """Where the first answer would be ambiguous, a second request might double what it has confirmed."""
    runs = Runs(FakeTransport(), FakeTransport(), flush_interval=0.01, on_ambiguous="drop")

    async def begin() -> None:
        await runs.batcher.start()
        runs.batcher.push(EVENT)
        await asyncio.sleep(3600)

    async def go_on() -> None:
        async with runs.batcher:
            assert await runs.batcher.flush()

    def completes(engine: Engine, attempt: Attempt, reply: Reply, now: float) -> bool:
        complete(engine, attempt, reply, now)
        return True

    complete = Engine.complete
    with mock.patch.object(Engine, "complete", completes), interrupting(Engine, "complete", after=after):
        interrupted_run(begin())
    asyncio.run(go_on())
    assert fates(runs.batcher) == {"delivered": 1}
    assert runs.requests == [1, 0]
