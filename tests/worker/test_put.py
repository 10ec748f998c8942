"""`put` waits for room without polling, in line, and never loses its place to nobody."""

import asyncio
import threading

import anyio
import pytest

from honeyhive_batcher import Admission, Batcher, ClosedError, EncodeError
from tests.fakes import HANG, FakeTransport, check_ledger, fates, make_batcher
from tests.virtual_time import now, until, virtual_loop

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

EVENT = {"model": "gpt-4o"}


async def full(transport: FakeTransport, *, events: int = 1) -> Batcher:
    """Start a batcher whose queue is full."""
    batcher = make_batcher(
        transport, max_queue_events=events, max_batch_events=events, flush_interval=0, max_in_flight=1
    )
    await batcher.start()
    for _ in range(events):
        assert batcher.push(EVENT)
    assert batcher.push(EVENT) is Admission.QUEUE_FULL
    return batcher


async def test_with_room_it_does_not_wait() -> None:
    async with make_batcher(FakeTransport()) as batcher:
        turns = virtual_loop().turns
        assert await batcher.put(EVENT) is Admission.ACCEPTED
        assert virtual_loop().turns == turns


async def test_a_loop_of_puts_does_not_keep_the_event_loop_to_itself() -> None:
    async with make_batcher(FakeTransport()) as batcher:
        turns = virtual_loop().turns
        for _ in range(1000):
            await batcher.put(EVENT)
        assert virtual_loop().turns - turns >= 5
        assert now() == 0.0
    assert fates(batcher) == {"delivered": 1000}


async def test_whether_the_loop_has_turned_is_known_by_the_worker_that_runs_in_it() -> None:
    batcher = make_batcher(FakeTransport())
    callers = batcher._lifecycle.callers
    assert not callers.has_turned()
    async with batcher:
        assert callers.has_turned()  # the worker has had its first
        assert not callers.has_turned()
        batcher.push(EVENT)
        assert not callers.has_turned()
        await batcher.flush()
        assert callers.has_turned()
        assert not callers.has_turned()
        batcher.push(EVENT)
        await batcher.flush()
        seen: list[bool] = []
        thread = threading.Thread(target=lambda: seen.append(callers.has_turned()))
        thread.start()
        thread.join()
        assert seen == [False]  # its own loop, if it has one, may have stood still meanwhile


async def test_a_loop_of_puts_that_lets_others_run_is_not_interrupted_by_any() -> None:
    async with make_batcher(FakeTransport(), max_batch_events=10) as batcher:
        turns = virtual_loop().turns
        for number in range(1000):
            await batcher.put(EVENT)
            if number % 10 == 0:
                await asyncio.sleep(0)
        assert virtual_loop().turns - turns <= 101


async def test_it_waits_until_there_is_room_and_looks_at_nothing_meanwhile() -> None:
    batcher = await full(FakeTransport(latency=3600))
    async with batcher:
        turns = virtual_loop().turns
        assert await batcher.put(EVENT) is Admission.ACCEPTED
        assert now() == 3600.0
        assert virtual_loop().turns - turns < 12
    assert fates(batcher) == {"delivered": 1, "unconfirmed": 1}


async def test_those_that_wait_get_room_in_the_order_in_which_they_came() -> None:
    transport = FakeTransport(latency=1)
    batcher = await full(transport)
    got: list[tuple[int, float]] = []

    async def put(number: int) -> None:
        await batcher.put({"number": number})
        got.append((number, now()))

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(put(number))
    await batcher.flush()
    await batcher.aclose()
    assert got == [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]
    assert [event.get("number") for sent in transport.sent for event in sent.events] == [None, 0, 1, 2, 3]


async def test_a_batch_that_leaves_lets_as_many_in_as_there_is_room_for() -> None:
    batcher = await full(FakeTransport(latency=1), events=3)
    puts = [asyncio.create_task(batcher.put(EVENT)) for _ in range(5)]
    await asyncio.sleep(1.5)
    assert [put.done() for put in puts] == [True] * 3 + [False] * 2
    await asyncio.sleep(2)
    assert all(put.done() for put in puts)
    await batcher.aclose()
    assert fates(batcher) == {"delivered": 8}


async def test_room_that_comes_while_it_is_looked_for_is_noticed() -> None:
    """As when another thread settles between the look and the wait."""
    lifecycle = make_batcher(FakeTransport())._lifecycle
    answers = [Admission.QUEUE_FULL, Admission.ACCEPTED]

    def admit() -> Admission:
        lifecycle.callers.room.release_one()
        return answers.pop(0)

    assert await lifecycle.callers.wait_for_room(admit, timeout=1) is Admission.ACCEPTED
    assert now() == 0.0


async def test_whoever_finds_the_room_taken_keeps_the_first_place() -> None:
    """Somebody who pushes may come between the release of a waiter and its turn."""
    batcher = await full(FakeTransport(latency=1))
    order: list[str] = []

    async def put(name: str) -> None:
        await batcher.put(EVENT)
        order.append(name)

    async with asyncio.TaskGroup() as tasks:
        for name in ("first", "second"):
            tasks.create_task(put(name))
        await asyncio.sleep(0.5)
        tasks.create_task(_push_when_there_is_room(batcher))
    await batcher.aclose()
    assert order == ["first", "second"]
    assert fates(batcher) == {"delivered": 4}


async def _push_when_there_is_room(batcher: Batcher) -> None:
    """Take the room that the first waiter was woken for, before it runs."""
    await asyncio.sleep(0.5)
    await until(lambda: batcher.statistics().held == 0)
    assert batcher.push(EVENT)


async def test_a_timeout_is_exact_and_the_event_is_refused() -> None:
    batcher = await full(FakeTransport(HANG))
    with pytest.raises(TimeoutError):
        await batcher.put(EVENT, timeout=2.5)
    assert now() == 2.5
    assert check_ledger(batcher).refused == {"queue_full": 2}
    await batcher.aclose(timeout=0)


async def test_a_timeout_of_nothing_tries_once() -> None:
    batcher = await full(FakeTransport(latency=1))
    with pytest.raises(TimeoutError):
        await batcher.put(EVENT, timeout=0)
    await asyncio.sleep(2)
    assert await batcher.put(EVENT, timeout=0) is Admission.ACCEPTED
    await batcher.aclose()


async def test_the_room_that_a_cancelled_waiter_was_given_goes_to_the_next() -> None:
    batcher = await full(FakeTransport(latency=1))
    first = asyncio.create_task(batcher.put(EVENT))
    second = asyncio.create_task(batcher.put(EVENT))
    await asyncio.sleep(0.5)
    await asyncio.sleep(0.5)
    await until(lambda: batcher.statistics().held == 0)
    await asyncio.sleep(0)  # the first has been released, and has not looked
    first.cancel()
    await asyncio.wait([first, second], timeout=10)
    assert first.cancelled()
    assert second.done()
    assert now() == 1.0
    await batcher.aclose()
    assert fates(batcher) == {"delivered": 2}
    assert check_ledger(batcher).refused == {"queue_full": 2}


async def test_one_that_is_cancelled_while_it_waits_was_not_accepted() -> None:
    batcher = await full(FakeTransport(latency=1))
    with anyio.move_on_after(0.5):
        await batcher.put(EVENT)
    await batcher.aclose()
    numbers = check_ledger(batcher)
    assert (numbers.accepted, numbers.refused) == (1, {"queue_full": 2})


async def test_closing_sends_those_away_that_wait() -> None:
    batcher = await full(FakeTransport(HANG))
    puts = [asyncio.create_task(batcher.put(EVENT)) for _ in range(3)]
    await asyncio.sleep(1)
    closing = asyncio.create_task(batcher.aclose(timeout=4))
    outcomes = await asyncio.gather(*puts, return_exceptions=True)
    assert now() == 1.0
    assert [type(outcome) for outcome in outcomes] == [ClosedError] * 3
    await closing
    assert check_ledger(batcher).refused == {"queue_full": 1, "closed": 3}


async def test_closing_a_batcher_that_never_ran_sends_those_away_that_wait() -> None:
    batcher = make_batcher(FakeTransport(), max_queue_events=1)
    batcher.push(EVENT)
    put = asyncio.create_task(batcher.put(EVENT))
    await asyncio.sleep(1)
    await batcher.aclose()
    with pytest.raises(ClosedError):
        await put
    assert fates(batcher) == {"shutdown": 1}


async def test_it_says_why_something_can_never_be_an_event() -> None:
    async with make_batcher(FakeTransport(), max_event_bytes=100, max_queue_bytes=150) as batcher:
        with pytest.raises(EncodeError, match=r"."):
            await batcher.put(["no", "event"])
        with pytest.raises(EncodeError, match="100"):
            await batcher.put({"model": "m" * 200})
        numbers = check_ledger(batcher)
        assert numbers.refused == {"not_an_event": 1, "too_large": 1}


async def test_an_event_that_could_never_be_held_is_refused_and_not_waited_for() -> None:
    async with make_batcher(FakeTransport(), max_queue_bytes=150) as batcher:
        with pytest.raises(EncodeError, match="does not fit"):
            await batcher.put({"model": "m" * 200})
        assert check_ledger(batcher).refused == {"too_large": 1}


async def test_it_raises_when_the_batcher_is_closed() -> None:
    batcher = make_batcher(FakeTransport())
    async with batcher:
        pass
    with pytest.raises(ClosedError, match="start it again"):
        await batcher.put(EVENT)
    assert check_ledger(batcher).refused == {"closed": 1}


async def test_it_tells_what_before_send_kept() -> None:
    async with make_batcher(FakeTransport(), before_send=lambda _: None) as batcher:
        assert await batcher.put(EVENT) is Admission.FILTERED


async def test_it_waits_in_the_session_it_was_called_in() -> None:
    """The properties of a session are charged too, and room for both has to come."""
    transport = FakeTransport(latency=1)
    batcher = await full(transport)
    with batcher.session(session_name="chat") as session:
        put = asyncio.create_task(batcher.put(EVENT))
        await asyncio.sleep(0)
    given = asyncio.create_task(batcher.put(EVENT, session=session))
    await asyncio.gather(put, given)
    await batcher.aclose()
    assert fates(batcher) == {"delivered": 3}
    assert session.has_events
    assert b'"session_name":"chat"' in transport.sent[1].request.body
    assert b'"session_name":"chat"' in transport.sent[2].request.body


class Hostile(dict[str, object]):
    """Raises whatever it is told to when it is read."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def get(self, *_: object) -> object:
        raise self.error


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), asyncio.CancelledError(), RecursionError()])
async def test_an_event_that_raises_is_refused_and_counted_once(error: BaseException) -> None:
    async with make_batcher(FakeTransport()) as batcher:
        with pytest.raises(EncodeError, match=f"^the event raised {type(error).__name__} ") as caught:
            await batcher.put(Hostile(error))
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        assert batcher.push(Hostile(error)) is Admission.NOT_AN_EVENT
        numbers = check_ledger(batcher)
    assert (numbers.offered, numbers.refused) == (2, {"not_an_event": 2})


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
async def test_what_is_meant_for_the_program_passes_through(error: BaseException) -> None:
    async with make_batcher(FakeTransport()) as batcher:
        with pytest.raises(type(error)):
            batcher.push(Hostile(error))
        with pytest.raises(type(error)):
            await batcher.put(Hostile(error))
        assert batcher.statistics().offered == 0
