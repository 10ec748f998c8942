"""Callbacks see every fate once, may call the batcher, and hurt nobody when they raise."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from honeyhive_batcher import Admission, Batcher
from honeyhive_batcher.core.model import Response
from tests.fakes import HANG, OK, RESET, FakeTransport, check_ledger, fates, make_batcher

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

EVENT = {"model": "gpt-4o"}

RAISES = [ZeroDivisionError("secret"), asyncio.CancelledError(), RecursionError()]


def event(name: str) -> dict[str, Any]:
    return {"model": "gpt-4o", "event_id": name}


async def test_each_is_told_the_ids_and_the_reason_of_each_fate_once() -> None:
    told: list[tuple[Any, ...]] = []
    transport = FakeTransport(OK, Response(status=400), RESET, HANG)
    batcher = make_batcher(
        transport,
        max_batch_events=1,
        on_ambiguous="drop",
        on_delivered=lambda ids: told.append(("delivered", ids)),
        on_dropped=lambda ids, reason: told.append(("dropped", ids, reason)),
        on_unconfirmed=lambda ids: told.append(("unconfirmed", ids)),
    )
    await batcher.start()
    for name in "abcd":
        batcher.push(event(name))
    await asyncio.sleep(1)
    assert sorted(told) == [
        ("delivered", ("a",)),
        ("dropped", ("b",), "rejected"),
        ("unconfirmed", ("c",)),
    ]
    await batcher.aclose(timeout=1)
    assert told[3:] == [("unconfirmed", ("d",))]


async def test_they_are_told_together_what_met_its_fate_together() -> None:
    told: list[tuple[str, ...]] = []
    async with make_batcher(FakeTransport(), on_delivered=told.append) as batcher:
        for name in "abc":
            batcher.push(event(name))
    assert told == [("a", "b", "c")]


async def test_one_that_is_not_given_is_not_missed() -> None:
    transport = FakeTransport(OK, Response(status=400), RESET)
    told: list[tuple[str, ...]] = []
    async with make_batcher(
        transport, max_batch_events=1, on_ambiguous="drop", on_delivered=told.append
    ) as batcher:
        for name in "abc":
            batcher.push(event(name))
    assert told == [("a",)]
    assert fates(batcher) == {"delivered": 1, "rejected": 1, "unconfirmed": 1}


@pytest.mark.parametrize("error", RAISES, ids=repr)
async def test_one_that_raises_is_counted_and_hurts_nobody(error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    transport = FakeTransport(OK, Response(status=400), RESET)
    async with make_batcher(
        transport,
        max_batch_events=1,
        on_ambiguous="drop",
        on_delivered=fail,
        on_dropped=fail,
        on_unconfirmed=fail,
    ) as batcher:
        for _ in range(3):
            batcher.push(EVENT)
        result = await batcher.flush()
        assert (result.delivered, result.dropped, result.unconfirmed) == (1, 1, 1)
        assert check_ledger(batcher).callback_errors == 3
        assert batcher.push(EVENT)
        assert (await batcher.flush()).ok
    assert check_ledger(batcher).callback_errors == 4


async def test_one_may_push_and_what_it_pushes_is_delivered() -> None:
    def push_once(ids: tuple[str, ...]) -> None:
        if ids != ("again",):
            assert batcher.push(event("again"))

    transport = FakeTransport()
    async with make_batcher(transport, flush_interval=0, on_delivered=push_once) as batcher:
        batcher.push(event("first"))
        await asyncio.sleep(1)
        assert transport.instants == [0.0, 0.0]
    assert fates(batcher) == {"delivered": 2}


async def test_one_that_is_told_of_an_eviction_may_push() -> None:
    """It is told in the midst of a turn of the worker, which has to take another one for it."""
    told: list[tuple[str, ...]] = []

    def push_once(ids: tuple[str, ...], reason: str) -> None:
        told.append((*ids, reason))
        if len(told) == 1:
            assert batcher.push(event("c"))

    transport = FakeTransport(latency=1)
    batcher = make_batcher(transport, max_queue_events=2, overflow="drop_oldest", on_dropped=push_once)
    async with batcher:
        assert batcher.push(event("on its way"))
        await asyncio.sleep(1.5)
        assert batcher.push(event("a"))
        assert batcher.push(event("b"))
        await asyncio.sleep(2)
        assert told == [("a", "evicted"), ("b", "evicted")]
        assert transport.instants == [1.0, 2.5]
    assert fates(batcher) == {"evicted": 2, "delivered": 2}


async def test_one_that_pushes_whenever_it_is_told_does_not_keep_the_event_loop_to_itself() -> None:
    def push_always(_: tuple[str, ...], __: str) -> None:
        batcher.push(EVENT)

    batcher: Batcher = make_batcher(
        FakeTransport(latency=1), max_queue_events=2, overflow="drop_oldest", on_dropped=push_always
    )
    async with batcher:
        batcher.push(EVENT)
        await asyncio.sleep(1.5)  # now it is on its way
        batcher.push(EVENT)
        batcher.push(EVENT)
        for _ in range(100):
            await asyncio.sleep(0)
        assert check_ledger(batcher).dropped["evicted"] > 10


@pytest.mark.parametrize("verb", [Batcher.flush, Batcher.aclose, lambda it: it.put(EVENT)])
async def test_one_may_begin_to_flush_put_and_close(verb: Callable[[Batcher], Any]) -> None:
    tasks: list[asyncio.Task[Any]] = []

    def begin(_: tuple[str, ...]) -> None:
        if not tasks:
            tasks.append(asyncio.get_running_loop().create_task(verb(batcher)))

    batcher: Batcher = make_batcher(FakeTransport(), max_batch_events=1, on_delivered=begin)
    async with batcher:
        batcher.push(EVENT)
        batcher.push(EVENT)
        await asyncio.sleep(2)
        assert tasks[0].done()
        await tasks[0]
    assert set(fates(batcher)) == {"delivered"}


async def test_one_may_push_while_closing_and_is_told_that_it_is_too_late() -> None:
    answers: list[Admission] = []
    batcher: Batcher = make_batcher(
        FakeTransport(), on_delivered=lambda _: answers.append(batcher.push(EVENT))
    )
    async with batcher:
        batcher.push(EVENT)
    assert answers == [Admission.CLOSED]


# before_send.


async def test_before_send_may_keep_events_and_change_them() -> None:
    def before_send(event: dict[str, Any]) -> dict[str, Any] | None:
        return None if event["model"] == "secret" else {**event, "source": "changed"}

    transport = FakeTransport()
    async with make_batcher(transport, before_send=before_send) as batcher:
        assert batcher.push({"model": "secret"}) is Admission.FILTERED
        pushed = {"model": "open"}
        assert batcher.push(pushed)
        assert pushed == {"model": "open"}
    (sent,) = transport.sent
    assert [(event["model"], event["source"]) for event in sent.events] == [("open", "changed")]
    assert check_ledger(batcher).refused == {"filtered": 1}
    assert batcher.statistics().callback_errors == 0


@pytest.mark.parametrize("error", RAISES, ids=repr)
async def test_an_event_that_before_send_could_not_look_at_is_not_sent(error: BaseException) -> None:
    def before_send(_: object) -> None:
        raise error

    transport = FakeTransport()
    async with make_batcher(transport, before_send=before_send) as batcher:
        assert batcher.push(EVENT) is Admission.FILTERED
        assert await batcher.put(EVENT) is Admission.FILTERED
    assert transport.sent == []
    assert check_ledger(batcher).refused == {"filtered": 2}
    assert batcher.statistics().callback_errors == 2


async def test_before_send_may_push_another_event() -> None:
    def before_send(event: dict[str, Any]) -> dict[str, Any]:
        if event["model"] == "outer":
            assert batcher.push({"model": "inner"})
        return event

    transport = FakeTransport()
    async with make_batcher(transport, before_send=before_send) as batcher:
        assert batcher.push({"model": "outer"})
    assert [event["model"] for event in transport.sent[0].events] == ["inner", "outer"]


async def test_what_before_send_makes_of_an_event_has_to_be_one() -> None:
    async with make_batcher(FakeTransport(), before_send=lambda _: 7) as batcher:
        assert batcher.push(EVENT) is Admission.NOT_AN_EVENT
    assert check_ledger(batcher).refused == {"not_an_event": 1}


async def test_what_a_batcher_that_never_ran_held_is_told_when_it_is_closed() -> None:
    told: list[tuple[str, ...]] = []
    batcher = make_batcher(FakeTransport(), on_dropped=lambda ids, reason: told.append((*ids, reason)))
    batcher.push(event("a"))
    batcher.push(event("b"))
    await batcher.aclose()
    assert told == [("a", "b", "shutdown")]
    assert fates(batcher) == {"shutdown": 2}


async def test_one_that_cancels_the_task_it_runs_in_hurts_nobody() -> None:
    def cancel(_: tuple[str, ...]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    transport = FakeTransport()
    async with make_batcher(transport, max_batch_events=1, on_delivered=cancel) as batcher:
        for _ in range(3):
            batcher.push(EVENT)
            await asyncio.sleep(1)
        assert fates(batcher) == {"delivered": 3}
        assert len(transport.sent) == 3
