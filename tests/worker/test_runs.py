"""One batcher, several runs: started twice, again, in another loop, and after a loop that died."""

import asyncio
import gc
import logging
import threading
import warnings
from collections.abc import Coroutine
from typing import Any, Self

import anyio
import pytest

from honeyhive_batcher import Admission, Batcher, BatcherError
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.model import Response
from tests.fakes import HANG, OK, FakeTransport, check_ledger, fates, make_batcher
from tests.virtual_time import now, run_virtually
from tests.worker.runs import Runs, SlowToOpen, die

EVENT = {"model": "gpt-4o"}


# In one loop.


@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_leaks")
async def test_starting_twice_is_as_good_as_once() -> None:
    transport = FakeTransport()
    batcher = make_batcher(transport)
    assert await batcher.start() is batcher
    assert await batcher.start() is batcher
    assert transport.opened == 1
    batcher.push(EVENT)
    await batcher.aclose()
    assert transport.closed == 1
    assert len(transport.sent) == 1


@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_leaks")
async def test_a_closed_batcher_can_be_started_again_and_its_numbers_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = FakeTransport()
    batcher = make_batcher(transport)
    for run in range(1, 4):
        async with batcher:
            assert batcher.push(EVENT)
            await asyncio.sleep(2)
            assert transport.instants[-1] == now() - 1
        assert batcher.push(EVENT) is Admission.CLOSED
        assert fates(batcher) == {"delivered": run}
        assert check_ledger(batcher).refused == {"closed": run}
    told = [
        record for record in caplog.records if "pushed after the batcher was closed" in record.getMessage()
    ]
    assert len(told) == 3
    assert (transport.opened, transport.closed) == (3, 3)


@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_leaks")
async def test_starting_while_it_closes_begins_a_new_run_after_the_end() -> None:
    batcher = make_batcher(FakeTransport(latency=2))
    await batcher.start()
    batcher.push(EVENT)
    closing = asyncio.create_task(batcher.aclose())
    await asyncio.sleep(0.5)
    await batcher.start()
    assert now() == 2.0
    assert closing.done()
    assert batcher.push(EVENT)
    await batcher.aclose()
    assert fates(batcher) == {"delivered": 2}


@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_leaks")
async def test_trouble_of_one_run_is_forgotten_in_the_next() -> None:
    transport = FakeTransport(Response(status=401))
    batcher = make_batcher(transport, max_batch_events=1)
    async with batcher:
        batcher.push(EVENT)
        await asyncio.sleep(1)
    assert fates(batcher) == {"shutdown": 1}
    async with batcher:
        batcher.push(EVENT)
        assert await batcher.flush()
    assert fates(batcher) == {"shutdown": 1, "delivered": 1}


@pytest.mark.anyio
async def test_its_repr_tells_the_state() -> None:
    batcher = make_batcher(FakeTransport())
    assert repr(batcher) == "<Batcher not started: 0 accepted, 0 delivered, 0 held, 0 requests in flight>"
    await batcher.start()
    batcher.push(EVENT)
    assert repr(batcher) == "<Batcher open: 1 accepted, 0 delivered, 1 held, 0 requests in flight>"
    await batcher.aclose()
    assert repr(batcher) == "<Batcher closed: 1 accepted, 1 delivered, 0 held, 0 requests in flight>"


# In several loops, one after another.


def test_a_batcher_at_module_level_serves_one_asyncio_run_after_another() -> None:
    runs = Runs(FakeTransport(), FakeTransport())

    async def main() -> None:
        async with runs.batcher:
            assert runs.batcher.push(EVENT)

    asyncio.run(main())
    asyncio.run(main())
    assert fates(runs.batcher) == {"delivered": 2}
    assert runs.requests == [1, 1]


def test_asyncio_run_delivers_what_a_program_forgot_to_close() -> None:
    """Its end cancels all tasks; the worker takes its bounded chance then."""
    runs = Runs(FakeTransport(latency=0.01), FakeTransport(), flush_interval=60)

    async def forget() -> None:
        await runs.batcher.start()
        runs.batcher.push(EVENT)

    asyncio.run(forget())
    assert fates(runs.batcher) == {"delivered": 1}
    assert runs.transports[0].closed == 1
    assert runs.batcher.push(EVENT) is Admission.CLOSED

    async def again() -> None:
        async with runs.batcher:
            assert runs.batcher.push(EVENT)

    asyncio.run(again())
    assert fates(runs.batcher) == {"delivered": 2}


def test_asyncio_run_waits_no_longer_than_shutdown_timeout() -> None:
    async def forget() -> tuple[Batcher, asyncio.AbstractEventLoop]:
        batcher = make_batcher(FakeTransport(otherwise=HANG), shutdown_timeout=3)
        await batcher.start()
        batcher.push(EVENT)
        return batcher, asyncio.get_running_loop()

    batcher, loop = run_virtually(forget)
    assert loop.time() == 3.0
    assert fates(batcher) == {"unconfirmed": 1}
    run_virtually(batcher.aclose)


def test_an_anyio_program_that_is_interrupted_delivers() -> None:
    runs = Runs(FakeTransport(latency=0.01), flush_interval=60)

    async def main() -> None:
        with anyio.move_on_after(0.02):
            async with runs.batcher:
                runs.batcher.push(EVENT)
                await anyio.sleep(60)

    anyio.run(main)
    assert fates(runs.batcher) == {"delivered": 1}


def test_it_runs_in_one_loop_at_a_time() -> None:
    runs = Runs(FakeTransport())
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            asyncio.run(_started(runs.batcher))
        except BatcherError as error:
            raised.append(error)

    async def main() -> None:
        async with runs.batcher:
            await asyncio.to_thread(elsewhere)

    asyncio.run(main())
    (error,) = raised
    assert "another event loop" in str(error)


async def _started(batcher: Batcher) -> None:
    await batcher.start()


# After a loop that died without closing.


@pytest.mark.parametrize(
    ("on_ambiguous", "expected"),
    [("retry", {"delivered": 3}), ("drop", {"delivered": 2, "unconfirmed": 1})],
)
def test_after_a_loop_that_died_the_next_run_goes_on_with_what_was_held(
    on_ambiguous: str, expected: dict[str, int]
) -> None:
    runs = Runs(FakeTransport(HANG), FakeTransport(), on_ambiguous=on_ambiguous, backoff_base=0.01)

    async def begin() -> None:
        await runs.batcher.start()
        runs.batcher.push(EVENT)
        assert (await runs.batcher.flush(timeout=0.01)).held == 1  # under way, and no answer will come
        assert runs.batcher.push(EVENT)

    async def go_on() -> None:
        async with runs.batcher:
            await runs.batcher.flush()

    die(begin())
    assert runs.batcher.push(EVENT) is Admission.ACCEPTED
    numbers = check_ledger(runs.batcher)
    assert (numbers.offered, numbers.accepted, numbers.held) == (3, 3, 3)
    asyncio.run(go_on())
    assert fates(runs.batcher) == expected
    gc.collect()


def test_flushing_after_a_loop_that_died_returns_at_once() -> None:
    runs = Runs(FakeTransport())

    async def begin() -> None:
        await runs.batcher.start()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    die(begin())
    runs.batcher.push(EVENT)
    assert asyncio.run(runs.batcher.flush()).held == 1
    asyncio.run(runs.batcher.aclose())
    assert fates(runs.batcher) == {"shutdown": 1}


def test_closing_after_a_loop_that_died_settles_what_was_held(caplog: pytest.LogCaptureFixture) -> None:
    runs = Runs(FakeTransport(HANG), max_batch_events=1)

    async def begin() -> None:
        await runs.batcher.start()
        runs.batcher.push(EVENT)
        await runs.batcher.flush(timeout=0.01)

    die(begin())
    runs.batcher.push(EVENT)
    asyncio.run(runs.batcher.aclose())
    assert fates(runs.batcher) == {"unconfirmed": 1, "shutdown": 1}
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "1 dropped, 1 unconfirmed" in line


def _stop_before_it_sends(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> asyncio.AbstractEventLoop:
    """Return a loop that stands still between the beginning of a request and the first step of its task."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(runs.batcher.start())
    poll = Engine.poll

    def poll_and_stop(engine: Engine, now: float) -> Any:
        begun = poll(engine, now)
        if begun:
            loop.stop()
        return begun

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "poll", poll_and_stop)
        runs.batcher.push(EVENT)
        loop.run_forever()
    assert runs.batcher.statistics().in_flight == 1
    return loop


@pytest.mark.parametrize("is_closed", [True, False])
def test_what_a_loop_never_came_to_send_is_surely_unsent(
    monkeypatch: pytest.MonkeyPatch, *, is_closed: bool
) -> None:
    first, second = FakeTransport(), FakeTransport()
    runs = Runs(first, second, flush_interval=0, on_ambiguous="drop", backoff_base=0.001)
    loop = _stop_before_it_sends(runs, monkeypatch)
    if is_closed:
        loop.close()

    async def go_on() -> None:
        async with runs.batcher:
            assert await runs.batcher.flush()

    asyncio.run(go_on())
    if not is_closed:
        loop.run_until_complete(asyncio.sleep(0.01))  # it turns again, when another has sent the event
        loop.close()
    gc.collect()  # where asyncio would say that a coroutine was never awaited
    assert first.sent == []
    assert fates(runs.batcher) == {"delivered": 1}


def test_what_a_loop_never_came_to_send_is_not_called_unconfirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(FakeTransport(), flush_interval=0)
    _stop_before_it_sends(runs, monkeypatch).close()
    asyncio.run(runs.batcher.aclose())
    gc.collect()
    assert fates(runs.batcher) == {"shutdown": 1}


def test_a_loop_that_stood_still_and_moves_again_does_not_disturb_the_next_run() -> None:
    first, second = FakeTransport(HANG), FakeTransport()
    runs = Runs(first, second, backoff_base=0.01)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        await runs.batcher.start()
        runs.batcher.push(EVENT)
        await runs.batcher.flush(timeout=0.01)

    async def take_over() -> None:
        await runs.batcher.start()
        assert await runs.batcher.flush()
        await asyncio.to_thread(end)
        assert runs.batcher.push(EVENT)
        await runs.batcher.aclose()

    def end() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(asyncio.sleep(0))  # and its end cancels all tasks

    loop.run_until_complete(begin())
    asyncio.run(take_over())
    assert fates(runs.batcher) == {"delivered": 2}
    assert (first.closed, second.closed) == (1, 1)


# From other threads and their loops.


class ThreadedLoop:
    """An event loop that runs in a thread of its own."""

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.loop.set_exception_handler(lambda *_: None)  # what it leaves behind is the test's business
        self.loop.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(main, self.loop).result(10)


def test_of_several_threads_that_start_it_at_once_one_runs_it() -> None:
    transport = SlowToOpen()
    runs = Runs(transport, transport, transport, flush_interval=0)
    all_begin, is_delivered = threading.Barrier(3), threading.Event()
    outcomes: list[str] = []

    async def live() -> None:
        all_begin.wait(10)
        try:
            await runs.batcher.start()
        except BatcherError as error:
            outcomes.append(str(error))
            return
        runs.batcher.push(EVENT)
        assert await runs.batcher.flush(timeout=10)  # whoever runs it is the one that a push wakes
        outcomes.append("runs")
        await asyncio.to_thread(is_delivered.wait, 10)
        await runs.batcher.aclose()

    threads = [threading.Thread(target=lambda: asyncio.run(live())) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(outcomes) < 3 and any(thread.is_alive() for thread in threads):
        threads[0].join(0.01)
    is_delivered.set()
    for thread in threads:
        thread.join()
    refusal = "this batcher runs in another event loop: close it there first"
    assert sorted(outcomes) == ["runs", refusal, refusal]
    assert (transport.opened, transport.closed) == (1, 1)
    assert fates(runs.batcher) == {"delivered": 1}


@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_leaks")
async def test_starting_twice_at_once_is_as_good_as_once() -> None:
    transport = SlowToOpen()
    batcher = make_batcher(transport)
    await asyncio.gather(batcher.start(), batcher.start())
    assert transport.opened == 1
    batcher.push(EVENT)
    assert await batcher.flush()
    await batcher.aclose()
    assert (len(transport.sent), transport.closed) == (1, 1)


def test_it_can_be_flushed_and_closed_from_another_loop() -> None:
    runs = Runs(FakeTransport(latency=0.02), flush_interval=60)
    with ThreadedLoop() as home:
        home.run(runs.batcher.start())
        assert runs.batcher.push(EVENT)
        assert asyncio.run(runs.batcher.flush(timeout=10)).delivered == 1
        assert runs.batcher.push(EVENT)
        asyncio.run(runs.batcher.aclose())
    assert fates(runs.batcher) == {"delivered": 2}
    assert runs.transports[0].closed == 1


def test_closing_from_another_loop_ends_before_its_cancellation_is_raised() -> None:
    runs = Runs(FakeTransport(latency=0.1), flush_interval=60)

    async def close() -> None:
        closing = asyncio.create_task(runs.batcher.aclose())
        await asyncio.sleep(0.01)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert fates(runs.batcher) == {"delivered": 1}

    with ThreadedLoop() as home:
        home.run(runs.batcher.start())
        runs.batcher.push(EVENT)
        asyncio.run(close())


def test_a_flush_elsewhere_returns_when_the_loop_of_the_run_stands_still_and_it_is_closed() -> None:
    runs = Runs(FakeTransport(HANG), flush_interval=0)

    async def close() -> None:
        flush = asyncio.create_task(runs.batcher.flush())
        await asyncio.sleep(0)
        home.stop()
        await runs.batcher.aclose()
        async with asyncio.timeout(5):
            assert (await flush).held == 0

    with ThreadedLoop() as home:
        home.run(runs.batcher.start())
        runs.batcher.push(EVENT)
        asyncio.run(close())
    assert sum(fates(runs.batcher).values()) == 1


def test_it_can_be_put_into_from_another_loop_while_the_queue_is_full() -> None:
    runs = Runs(FakeTransport(latency=0.001), max_queue_events=2, max_batch_events=2)

    async def put() -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(50):
                tasks.create_task(runs.batcher.put(EVENT))

    with ThreadedLoop() as home:
        home.run(runs.batcher.start())
        threads = [threading.Thread(target=asyncio.run, args=(put(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asyncio.run(runs.batcher.aclose())
    assert fates(runs.batcher) == {"delivered": 200}


def test_one_that_waits_in_a_loop_that_stands_still_holds_nobody_up() -> None:
    runs = Runs(FakeTransport(OK, HANG), max_queue_events=1, max_batch_events=1)
    still = asyncio.new_event_loop()

    async def wait_in_vain() -> asyncio.Task[Admission]:
        put = asyncio.create_task(runs.batcher.put(EVENT))
        await asyncio.sleep(0)
        return put

    async def main() -> None:
        await runs.batcher.start()
        assert await runs.batcher.put(EVENT, timeout=10)
        await runs.batcher.aclose(timeout=0)

    runs.batcher.push(EVENT)
    waiting = still.run_until_complete(wait_in_vain())
    asyncio.run(main())
    with pytest.raises(BatcherError):
        still.run_until_complete(waiting)
    still.close()


# Forgotten.


def test_one_that_is_forgotten_while_it_runs_is_warned_about_and_still_delivers() -> None:
    transport = FakeTransport(latency=1)

    async def main() -> None:
        batcher = make_batcher(transport, flush_interval=60)
        await batcher.start()
        batcher.push(EVENT)
        await asyncio.sleep(1)
        with pytest.warns(ResourceWarning, match="not closed, with 1 events held"):
            del batcher
        await asyncio.sleep(5)
        assert transport.instants == [1.0]
        assert transport.closed == 1

    run_virtually(main)


def test_one_that_is_forgotten_in_a_cycle_while_idle_ends_in_order() -> None:
    """Nothing but the cycle holds the worker then: the loop knows its tasks only weakly."""
    complaints: list[dict[str, Any]] = []
    transport = FakeTransport()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        cycle: list[Any] = [make_batcher(transport)]
        cycle.append(cycle)
        await cycle[0].start()
        await asyncio.sleep(1)
        del cycle
        with pytest.warns(ResourceWarning, match="not closed, with 0 events held"):
            gc.collect()
        await asyncio.sleep(1)
        assert transport.closed == 1

    run_virtually(main)
    gc.collect()
    assert complaints == []


@pytest.mark.anyio
async def test_one_that_is_forgotten_with_events_before_it_ran_is_warned_about() -> None:
    batcher = make_batcher(FakeTransport())
    batcher.push(EVENT)
    with pytest.warns(ResourceWarning, match="not closed, with 1 events held"):
        del batcher


@pytest.mark.anyio
async def test_one_that_was_closed_or_never_used_is_let_go_in_silence() -> None:
    used, unused, unstarted = (make_batcher(FakeTransport()) for _ in range(3))
    async with used:
        used.push(EVENT)
    unstarted.push(EVENT)
    await unstarted.aclose()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del used, unused, unstarted
        gc.collect()


def test_one_whose_settings_were_wrong_is_let_go_in_silence() -> None:
    with pytest.raises(BatcherError):
        Batcher()
    gc.collect()


# In virtual time itself: the loop tells on what would never end.


def test_a_deadlock_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="a deadlock at the instant 2"):
        run_virtually(_sleep_and_wait_for_ever)


async def _sleep_and_wait_for_ever() -> None:
    await asyncio.sleep(2)
    await asyncio.Event().wait()


def test_spinning_is_an_error() -> None:
    async def spin() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(again := lambda: loop.call_soon(again))
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="something spins"):
        run_virtually(spin)
