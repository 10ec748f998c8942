"""Cancellation at every await: each scenario runs once for every turn of the loop in which it may strike."""

import asyncio
import gc
import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from honeyhive_batcher import Admission, Batcher
from tests.fakes import HANG, OK, RESET, FakeTransport, check_ledger, fates, make_batcher
from tests.virtual_time import VirtualTimeLoop, now, virtual_loop

EVENT = {"model": "gpt-4o"}

Strike = Callable[[], bool]
"""What befalls a scenario, in one turn; returns whether it struck anything."""
Scenario = Callable[["Case"], Awaitable[None]]


class Case:
    """One run of a scenario: in its `turn`-th turn after `arm`, the strike comes."""

    def __init__(self, turn: int, strikes: int) -> None:
        self._turns = range(turn, turn + strikes)
        self._turn = 0
        self._strike: Strike | None = None
        self.was_reached = False
        self.has_struck = False

    def arm(self, strike: Strike) -> None:
        """Count the turns from here on."""
        self._strike = strike
        virtual_loop().before_turn = self._count

    def _count(self) -> None:
        assert self._strike is not None
        if self._turn in self._turns:
            self.was_reached = True
            self.has_struck |= self._strike()
        self._turn += 1

    def disarm(self) -> None:
        """Let nothing strike any more."""
        virtual_loop().before_turn = lambda: None


def everywhere(scenario: Scenario, *, strikes: int = 1) -> int:
    """Run a scenario for every turn that it takes, and return how many those are."""
    for turn in itertools.count():
        case = Case(turn, strikes)
        _run(scenario, case)
        if not case.was_reached:
            return turn
    raise AssertionError


def _run(scenario: Scenario, case: Case) -> None:
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        await scenario(case)
        case.disarm()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    gc.collect()
    assert complaints == []


@pytest.fixture(autouse=True)
def _cheap_garbage() -> Iterator[None]:
    """Everything older than the test is left out of its many collections."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def busy(**settings: Any) -> tuple[Batcher, FakeTransport]:
    """Start a batcher with a request under way that will fail, and others waiting."""
    transport = FakeTransport(OK, RESET, latency=0.25)
    batcher = make_batcher(transport, **{"max_batch_events": 2, "max_in_flight": 2, **settings})
    await batcher.start()
    for _ in range(7):
        assert batcher.push(EVENT)
    await asyncio.sleep(0.125)
    return batcher, transport


def tasks_of_the_batcher(name: str = "") -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith(f"honeyhive_batcher.{name}")]


def cancel(tasks: list[asyncio.Task[Any]]) -> bool:
    return sum(task.cancel() for task in tasks) > 0


async def finish(task: asyncio.Task[Any]) -> None:
    await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None


def test_the_caller_of_flush_may_be_cancelled_anywhere() -> None:
    async def scenario(case: Case) -> None:
        batcher, transport = await busy()
        flush = asyncio.create_task(batcher.flush())
        case.arm(flush.cancel)
        await finish(flush)
        assert await batcher.flush()
        await batcher.aclose()
        assert fates(batcher) == {"delivered": 7}
        assert transport.closed == 1
        assert batcher._intake.ledger._barriers == []

    assert everywhere(scenario) > 5


def test_a_flush_with_a_timeout_may_be_cancelled_anywhere() -> None:
    async def scenario(case: Case) -> None:
        batcher, _ = await busy()
        flush = asyncio.create_task(batcher.flush(timeout=0.25))
        case.arm(flush.cancel)
        await finish(flush)
        assert now() <= 0.375
        await batcher.aclose()
        assert fates(batcher) == {"delivered": 7}

    assert everywhere(scenario) > 5


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_the_caller_of_put_may_be_cancelled_anywhere_and_the_others_get_their_room(victim: int) -> None:
    async def scenario(case: Case) -> None:
        batcher, transport = await busy(max_queue_events=7)
        puts = [asyncio.create_task(batcher.put({"put": number}, timeout=60)) for number in range(5)]
        await asyncio.sleep(0)
        case.arm(puts[victim].cancel)
        for put in puts:
            await finish(put)
        accepted = [number for number, put in enumerate(puts) if not put.cancelled()]
        assert set(range(5)) - set(accepted) <= {victim}
        assert all(puts[number].result() is Admission.ACCEPTED for number in accepted)
        await batcher.aclose()
        numbers = check_ledger(batcher)
        assert numbers.delivered == 7 + len(accepted)
        assert numbers.refused == ({"queue_full": 1} if len(accepted) == 4 else {})
        delivered = {event["put"] for sent in transport.sent for event in sent.events if "put" in event}
        assert delivered == set(accepted)

    assert everywhere(scenario) > 10


@pytest.mark.parametrize("strikes", [1, 2, 1000])
def test_the_caller_of_aclose_may_be_cancelled_anywhere(strikes: int) -> None:
    async def scenario(case: Case) -> None:
        batcher, transport = await busy()
        closing = asyncio.create_task(batcher.aclose())
        await asyncio.sleep(0)
        case.arm(closing.cancel)
        await finish(closing)
        assert closing.cancelled() == case.has_struck
        assert fates(batcher) == {"delivered": 7}
        assert transport.closed == 1

    assert everywhere(scenario, strikes=strikes) > 10


def test_the_caller_of_aclose_may_be_cancelled_anywhere_while_the_server_hangs() -> None:
    async def scenario(case: Case) -> None:
        transport = FakeTransport(otherwise=HANG)
        transport.on_close = HANG
        batcher = make_batcher(transport, max_batch_events=1, max_in_flight=1)
        await batcher.start()
        batcher.push(EVENT)
        batcher.push(EVENT)
        await asyncio.sleep(1)
        closing = asyncio.create_task(batcher.aclose(timeout=2))
        await asyncio.sleep(0)
        case.arm(closing.cancel)
        await finish(closing)
        assert now() == 4.0  # two seconds, and one for the transport
        assert fates(batcher) == {"unconfirmed": 1, "shutdown": 1}

    assert everywhere(scenario) > 5


@pytest.mark.parametrize("strikes", [1, 2, 1000])
@pytest.mark.parametrize("name", ["worker", "send", ""])
def test_the_tasks_of_the_batcher_may_be_cancelled_anywhere(name: str, strikes: int) -> None:
    async def scenario(case: Case) -> None:
        transport = FakeTransport(OK, RESET, latency=0.25)
        batcher = make_batcher(transport, max_batch_events=2, max_retries=10**6, max_elapsed=10**6)
        await batcher.start()
        case.arm(lambda: cancel(tasks_of_the_batcher(name)))
        accepted = sum(bool(batcher.push(EVENT)) for _ in range(7))
        await asyncio.sleep(0.5)
        result = await batcher.flush(timeout=60)
        await batcher.aclose()
        numbers = check_ledger(batcher)
        assert numbers.held == 0
        assert numbers.accepted == accepted
        assert result.held + result.delivered + result.dropped + result.unconfirmed <= accepted
        assert transport.closed == 1
        assert now() < 70
        if strikes == 1:
            assert numbers.delivered == accepted

    assert everywhere(scenario, strikes=strikes) > 10


@pytest.mark.parametrize("with_its_tasks", [False, True])
def test_starting_may_be_cancelled_anywhere(with_its_tasks: bool) -> None:
    class SlowToOpen(FakeTransport):
        async def open(self) -> None:
            await super().open()
            await asyncio.sleep(1)
            await asyncio.sleep(1)

    async def scenario(case: Case) -> None:
        batcher = make_batcher(SlowToOpen())
        batcher.push(EVENT)
        starting = asyncio.create_task(batcher.start())
        case.arm(lambda: cancel([starting, *tasks_of_the_batcher()]) if with_its_tasks else starting.cancel())
        await finish(starting)
        case.disarm()
        assert not starting.cancelled() or tasks_of_the_batcher() == []
        await batcher.start()
        await batcher.aclose()
        assert fates(batcher) == {"delivered": 1}

    assert everywhere(scenario) > 2


def test_the_whole_program_may_be_cancelled_anywhere() -> None:
    """As by Ctrl-C under `asyncio.run`: what was accepted is delivered."""

    async def scenario(case: Case) -> None:
        batchers: list[Batcher] = []

        async def program() -> None:
            async with make_batcher(FakeTransport(latency=0.25), flush_interval=0.5) as batcher:
                batchers.append(batcher)
                for _ in range(3):
                    await batcher.put(EVENT)
                    await asyncio.sleep(0.25)
                await batcher.flush()

        task = asyncio.create_task(program())
        case.arm(task.cancel)
        await finish(task)
        for batcher in batchers:
            numbers = check_ledger(batcher)
            assert numbers.delivered == numbers.accepted

    assert everywhere(scenario) > 10
