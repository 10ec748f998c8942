"""Loops that stop, die or belong to others, and interruptions that are meant for the program."""

import asyncio
import contextlib
import gc
import logging
import math
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from honeyhive_batcher import Admission, Batcher
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.model import Attempt
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.runtime.sends import Sends
from honeyhive_batcher.runtime.waiting import Vigil, Waiters
from honeyhive_batcher.runtime.worker import Worker
from tests.fakes import HANG, FakeTransport, fates, make_batcher
from tests.virtual_time import now, run_virtually, until, virtual_loop

uvloop = pytest.importorskip("uvloop")

EVENT = {"model": "gpt-4o"}


def over(transport: FakeTransport, **settings: Any) -> Batcher:
    """Make a batcher in no loop."""
    return Batcher(api_key="hh_test", _seams=Seams(transport=lambda _config: transport), **settings)


class Home:
    """A loop in a thread of its own, which writes down what it has to complain about."""

    def __init__(self) -> None:
        self.complaints: list[dict[str, Any]] = []
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        self.go_on()

    def go_on(self) -> None:
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, main: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(main, self.loop).result(10)

    def stop(self) -> None:
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def close(self) -> None:
        self.stop()
        self.loop.close()


@pytest.fixture
def home() -> Iterator[Home]:
    home = Home()
    yield home
    home.close()
    gc.collect()
    assert home.complaints == []


# Another loop, which ends while somebody waits for the batcher in it.


async def _soon(waiting: asyncio.Task[Any]) -> None:
    """Let it come to where it waits."""
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done


def test_a_flush_returns_when_the_other_loop_stops(home: Home) -> None:
    batcher = over(FakeTransport(HANG), flush_interval=0)
    home.run(batcher.start())
    batcher.push(EVENT)

    async def flush() -> None:
        flush = asyncio.create_task(batcher.flush())
        await _soon(flush)
        home.stop()
        async with asyncio.timeout(10):
            assert (await flush).held == 1

    asyncio.run(flush())
    asyncio.run(batcher.aclose())


@pytest.mark.parametrize("how", ["stop", "close"])
def test_closing_ends_with_the_other_loop(home: Home, how: str, caplog: pytest.LogCaptureFixture) -> None:
    batcher = over(FakeTransport(HANG), flush_interval=0)
    home.run(batcher.start())
    batcher.push(EVENT)
    timeout = 0.3 if how == "stop" else 60  # a loop that stands still may turn again; a closed one may not

    async def close() -> None:
        closing = asyncio.create_task(batcher.aclose(timeout))
        await _soon(closing)
        getattr(home, how)()
        async with asyncio.timeout(10):
            await closing

    asyncio.run(close())
    assert sum(fates(batcher).values()) == 1
    assert fates(batcher).get("held") is None
    assert "of the 1 events still held" in caplog.text


def test_closing_goes_on_when_the_other_loop_stops_only_for_a_moment(home: Home) -> None:
    transport = FakeTransport(latency=0.5)
    batcher = over(transport, flush_interval=0)
    home.run(batcher.start())
    batcher.push(EVENT)

    async def close() -> None:
        closing = asyncio.create_task(batcher.aclose(60))
        await _soon(closing)
        home.stop()
        await _soon(closing)
        home.go_on()
        closing.cancel()  # which changes nothing before the end
        await asyncio.wait([closing])
        assert closing.cancelled()

    asyncio.run(close())
    assert fates(batcher) == {"delivered": 1}
    assert transport.closed == 1


def test_a_put_returns_when_the_other_loop_is_closed(home: Home) -> None:
    batcher = over(FakeTransport(HANG), max_queue_events=1, max_batch_events=1)
    home.run(batcher.start())
    batcher.push(EVENT)

    async def put() -> None:
        put = asyncio.create_task(batcher.put(EVENT))
        await _soon(put)
        home.close()
        async with asyncio.timeout(10):
            with pytest.raises(TimeoutError, match="nobody makes room"):
                await put

    asyncio.run(put())
    asyncio.run(batcher.aclose())
    assert batcher.statistics().refused == {"queue_full": 1}


def test_a_watch_over_a_loop_is_patient_with_one_that_stands_still(home: Home) -> None:
    instants = iter([0.0, 1.0, 2.0, 2.0, 3.9, 4.0, 5.0])
    vigil = Vigil(home.loop, 2.0, lambda: next(instants))
    assert not vigil.is_over()
    home.stop()
    assert not vigil.is_over()  # since 0.0, at 1.0
    home.go_on()
    assert not vigil.is_over()
    home.stop()
    assert not vigil.is_over()  # since 2.0, at 2.0
    assert not vigil.is_over()
    assert vigil.is_over()
    home.close()
    assert vigil.is_over()


def test_a_wait_in_the_loop_of_the_batcher_looks_at_nothing_meanwhile() -> None:
    async def main() -> None:
        async with make_batcher(FakeTransport(latency=3600), max_batch_events=1) as batcher:
            batcher.push(EVENT)
            turns = virtual_loop().turns
            assert await batcher.flush()
            assert now() == 3600.0
            assert virtual_loop().turns - turns < 12

    run_virtually(main)


def test_who_waits_can_be_released_where_no_loop_runs() -> None:
    async def main() -> None:
        waiters = Waiters()
        waiter = waiters.register()
        await asyncio.to_thread(waiters.release_all)
        async with asyncio.timeout(10):
            await waiter

    asyncio.run(main())


# Nothing is left behind.


@pytest.mark.anyio
async def test_who_flushes_leaves_nothing_behind() -> None:
    batcher = make_batcher(FakeTransport(HANG), max_batch_events=1)
    batcher.push(EVENT)
    for _ in range(3):
        await batcher.flush()
    await batcher.start()
    for _ in range(3):
        await batcher.flush(timeout=1)
    assert batcher._lifecycle.callers.progress._waiting == {}
    await batcher.aclose(timeout=0)


def test_a_loop_that_is_closed_around_a_forgotten_batcher_is_told_of_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    complaints: list[dict[str, Any]] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    async def begin() -> Batcher:
        batcher = over(FakeTransport(HANG), max_batch_events=1)
        await batcher.start()
        batcher.push(EVENT)
        await batcher.flush(timeout=0.01)
        batcher.push(EVENT)
        return batcher

    batcher = loop.run_until_complete(begin())
    loop.close()
    with pytest.warns(ResourceWarning, match="not closed, with 2 events held"):
        del batcher
    gc.collect()
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "of the 2 events still held 0 were delivered, 1 dropped, 1 unconfirmed" in line
    assert complaints == []


# Interruptions.


def test_a_worker_that_is_cancelled_again_and_again_before_its_first_step_delivers() -> None:
    transport = FakeTransport(latency=0.01)
    batcher = over(transport, flush_interval=60)

    async def main() -> None:
        await batcher.start()
        batcher.push(EVENT)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()  # and `asyncio.run` will do so once more

    asyncio.run(main())
    assert fates(batcher) == {"delivered": 1}
    assert transport.closed == 1
    asyncio.run(batcher.aclose())


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["callback", "worker", "send"])
def test_an_interruption_ends_the_program_and_not_the_worker(
    interruption: type[BaseException], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[dict[str, Any]] = []
    raised: list[None] = []

    def interrupt() -> None:
        if not raised:
            raised.append(None)
            raise interruption

    def on_delivered(_: object) -> None:
        if where == "callback":
            interrupt()

    poll = Engine.poll

    def interrupted_poll(engine: Engine, now: float) -> Any:
        if where == "worker" and engine._intake.ledger.held_events:
            interrupt()
        return poll(engine, now)

    monkeypatch.setattr(Engine, "poll", interrupted_poll)
    transport = FakeTransport(*([interruption()] if where == "send" else []))
    batcher = over(transport, flush_interval=0, on_delivered=on_delivered, backoff_base=0.01)

    async def main() -> NoReturn:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with batcher:
            batcher.push(EVENT)
            await asyncio.sleep(0.05)
            batcher.push(EVENT)
            await asyncio.sleep(3600)
        raise AssertionError

    with pytest.raises(interruption):
        asyncio.run(main())
    gc.collect()
    assert complaints == []
    numbers = batcher.statistics()
    assert numbers.accepted == numbers.delivered >= 1
    assert numbers.callback_errors == (where == "callback")
    assert transport.closed == 1


def test_a_request_that_an_interruption_kept_from_being_begun_is_sent_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin = Sends.begin
    raised: list[Attempt] = []

    def interrupted_begin(sends: Sends, attempt: Attempt) -> None:
        if not raised:
            raised.append(attempt)
            raise KeyboardInterrupt
        begin(sends, attempt)

    monkeypatch.setattr(Sends, "begin", interrupted_begin)
    transport = FakeTransport()
    batcher = over(transport, max_batch_events=1, on_ambiguous="drop", backoff_base=0.001)

    async def main() -> None:
        async with batcher:
            batcher.push(EVENT)
            batcher.push(EVENT)
            await asyncio.sleep(3600)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert fates(batcher) == {"delivered": 2}
    assert len(transport.sent) == 2


def test_an_interruption_that_costs_the_end_of_a_run_its_callback_hangs_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a Ctrl-C strikes in the loop itself is called no more."""
    raised: list[str] = []
    ended, poll = Worker._ended, Engine.poll

    def lost_once(worker: Worker, task: asyncio.Task[None]) -> None:
        if "callback" not in raised:
            raised.append("callback")
        else:
            ended(worker, task)

    def interrupted_poll(engine: Engine, now: float) -> Any:
        if not raised and engine._intake.ledger.held_events:
            raised.append("poll")
            raise KeyboardInterrupt
        return poll(engine, now)

    monkeypatch.setattr(Worker, "_ended", lost_once)
    monkeypatch.setattr(Engine, "poll", interrupted_poll)
    batcher = over(FakeTransport(), max_batch_events=1)

    async def main() -> None:
        async with batcher:
            batcher.push(EVENT)
            await asyncio.sleep(3600)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert raised == ["poll", "callback"]
    assert fates(batcher) == {"delivered": 1}


# Odd times.


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("timeout", "seconds"), [(math.nan, 7.0), (-math.inf, 0.0), (-1, 0.0), (3, 3.0), (None, 7.0)]
)
async def test_closing_takes_any_number_for_a_time(timeout: float | None, seconds: float) -> None:
    batcher = make_batcher(FakeTransport(HANG), max_batch_events=1, shutdown_timeout=7)
    await batcher.start()
    batcher.push(EVENT)
    await asyncio.sleep(1)
    await batcher.aclose(timeout)
    assert now() == 1.0 + seconds
    assert fates(batcher) == {"unconfirmed": 1}


@pytest.mark.anyio
async def test_closing_without_end_takes_as_long_as_it_takes() -> None:
    batcher = make_batcher(FakeTransport(latency=10**6), max_batch_events=1)
    await batcher.start()
    batcher.push(EVENT)
    await batcher.aclose(math.inf)
    assert now() == 10.0**6
    assert fates(batcher) == {"delivered": 1}


@pytest.mark.anyio
@pytest.mark.parametrize("timeout", [math.nan, math.inf, 1e300])
async def test_a_flush_and_a_put_without_end_take_as_long_as_it_takes(timeout: float) -> None:
    batcher = make_batcher(FakeTransport(latency=100), max_queue_events=1, max_batch_events=1)
    await batcher.start()
    batcher.push(EVENT)
    assert await batcher.put(EVENT, timeout=timeout)
    assert await batcher.flush(timeout=timeout)
    assert now() == 200.0
    await batcher.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("timeout", [-1, -math.inf])
async def test_a_flush_and_a_put_with_less_than_no_time_return_at_once(timeout: float) -> None:
    batcher = make_batcher(FakeTransport(HANG), max_queue_events=1, max_batch_events=1)
    await batcher.start()
    batcher.push(EVENT)
    with pytest.raises(TimeoutError):
        await batcher.put(EVENT, timeout=timeout)
    assert (await batcher.flush(timeout=timeout)).held == 1
    assert now() == 0.0
    await batcher.aclose(timeout=0)


@pytest.mark.parametrize("timeout", [math.inf, math.nan, -math.inf, 1e300])
def test_odd_times_under_uvloop(timeout: float) -> None:
    batcher = over(FakeTransport(latency=0.01), max_queue_events=1, max_batch_events=1)

    async def main() -> None:
        await batcher.start()
        batcher.push(EVENT)
        with contextlib.suppress(TimeoutError):
            await batcher.put(EVENT, timeout=timeout)
        await batcher.flush(timeout=timeout)
        batcher.push(EVENT)
        await batcher.aclose(timeout)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert batcher.statistics().last_error is None
    assert fates(batcher).get("held") is None


# First come, first served.


@pytest.mark.anyio
async def test_a_fresh_put_does_not_overtake_those_who_wait() -> None:
    batcher = make_batcher(FakeTransport(latency=1), max_queue_events=1, max_batch_events=1)
    await batcher.start()
    batcher.push(EVENT)
    order: list[str] = []

    async def put(name: str) -> None:
        assert await batcher.put(EVENT) is Admission.ACCEPTED
        order.append(name)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(put("first"))
        tasks.create_task(put("second"))
        await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)
        await until(lambda: not batcher.statistics().held)
        await put("fresh")
    await batcher.aclose()
    assert order == ["first", "second", "fresh"]
    assert fates(batcher) == {"delivered": 4}
