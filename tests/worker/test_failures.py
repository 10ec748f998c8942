"""A bug of our own closes the batcher, settles what is held, lets go who waits, and hurts nobody else."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from honeyhive_batcher import Admission, ClosedError
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import DropReason, Fate, Phase, Response
from honeyhive_batcher.errors import InternalError
from tests.fakes import HANG, OK, FakeTransport, check_ledger, fates, make_batcher
from tests.virtual_time import now

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

EVENT = {"model": "gpt-4o"}


def broken(*_: object, **__: object) -> Any:
    raise InternalError("a bug")


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("method", ["poll", "wake_at"])
async def test_a_failure_of_the_engine_ends_the_run_in_order(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    transport = FakeTransport(HANG)
    batcher = make_batcher(transport, max_batch_events=1, max_queue_events=3, max_in_flight=1)
    await batcher.start()
    for _ in range(3):
        batcher.push(EVENT)
    put = asyncio.create_task(batcher.put(EVENT))
    flush = asyncio.create_task(batcher.flush())
    await asyncio.sleep(1)
    monkeypatch.setattr(Engine, method, broken)
    nudge = asyncio.create_task(batcher.flush())
    with pytest.raises(ClosedError):
        await put
    result = await flush
    await nudge
    assert now() == 1.0
    assert result.unconfirmed + result.dropped == 3
    assert fates(batcher) == {"internal": 2, "unconfirmed": 1}
    assert batcher.push(EVENT) is Admission.CLOSED
    assert batcher.statistics().last_error == "internal error (InternalError)"
    (line,) = errors(caplog)
    assert "bug of honeyhive_batcher" in line.getMessage()
    assert line.exc_info is not None
    await asyncio.sleep(5)
    assert (transport.cancelled, transport.closed) == (1, 1)
    await batcher.aclose()


async def test_a_reply_that_the_engine_fails_on_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = make_batcher(FakeTransport(latency=1), max_batch_events=2)
    await batcher.start()
    monkeypatch.setattr(Engine, "complete", broken)
    for _ in range(3):
        batcher.push(EVENT)
    await asyncio.sleep(0.5)
    result = await batcher.flush()
    assert now() == 1.0
    assert result.held == 0
    assert fates(batcher) in ({"unconfirmed": 2, "internal": 1}, {"unconfirmed": 3})
    assert len(errors(caplog)) == 1
    await batcher.aclose()


async def test_a_reply_whose_settling_fails_half_way_leaves_nothing_without_a_fate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The batch is neither in flight nor anywhere else at that moment."""
    batcher = make_batcher(FakeTransport(latency=1), max_batch_events=2)
    await batcher.start()
    settle = Intake.settle

    def fail_once(intake: Intake, fragments: Any, fate: Fate, reason: DropReason | None = None) -> None:
        if fate is Fate.DELIVERED:
            raise InternalError("a bug")
        settle(intake, fragments, fate, reason)

    monkeypatch.setattr(Intake, "settle", fail_once)
    batcher.push(EVENT)
    batcher.push(EVENT)
    await asyncio.sleep(2)
    assert fates(batcher) == {"unconfirmed": 2}
    await batcher.aclose()


async def test_when_not_even_giving_up_works_those_who_wait_are_let_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = make_batcher(FakeTransport(HANG), max_batch_events=1, max_queue_events=1)
    await batcher.start()
    batcher.push(EVENT)
    put = asyncio.create_task(batcher.put(EVENT))
    flush = asyncio.create_task(batcher.flush())
    await asyncio.sleep(1)
    monkeypatch.setattr(Engine, "abandon", broken)
    await batcher.aclose(timeout=1)
    with pytest.raises(ClosedError):
        await put
    assert (await flush).held == 1
    assert now() == 2.0
    assert batcher.push(EVENT) is Admission.CLOSED
    assert len(errors(caplog)) == 1
    check_ledger(batcher)


async def test_after_a_failure_it_can_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = FakeTransport()
    batcher = make_batcher(transport)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "poll", broken)
        batcher.push(EVENT)
        await batcher.start()
        await asyncio.sleep(2)
    assert fates(batcher) == {"internal": 1}
    async with batcher:
        assert batcher.push(EVENT)
    assert fates(batcher) == {"internal": 1, "delivered": 1}


async def test_the_host_notices_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asyncio.TaskGroup() as tasks:
        host = tasks.create_task(asyncio.sleep(10, "unharmed"))
        batcher = make_batcher(FakeTransport())
        monkeypatch.setattr(Engine, "poll", broken)
        async with batcher:
            batcher.push(EVENT)
            await asyncio.sleep(5)
    assert await host == "unharmed"


async def test_a_transport_that_cannot_open_is_told_to_who_starts_and_the_events_are_kept() -> None:
    class Broken(FakeTransport):
        async def open(self) -> None:
            if not self.opened:
                self.opened += 1
                raise OSError("no")

    transport = Broken()
    batcher = make_batcher(transport)
    batcher.push(EVENT)
    with pytest.raises(OSError, match="no"):
        await batcher.start()
    assert fates(batcher) == {"held": 1}
    assert not await batcher.flush()
    async with batcher:
        pass
    assert fates(batcher) == {"delivered": 1}


@pytest.mark.parametrize(
    "trouble",
    [lambda batcher: batcher._lifecycle._engine.abandon(), lambda batcher: batcher._intake.close()],
)
async def test_whatever_closed_it_closing_again_is_quiet(trouble: Callable[[Any], None]) -> None:
    batcher = make_batcher(FakeTransport())
    await batcher.start()
    trouble(batcher)
    await batcher.aclose()
    assert batcher._lifecycle._engine is not None
    assert batcher._lifecycle._engine.phase is Phase.CLOSED


class FailingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("disk full")


async def test_a_log_handler_of_the_hosts_that_fails_hurts_nothing() -> None:
    logger = logging.getLogger("honeyhive_batcher")
    handler = FailingHandler()
    logger.addHandler(handler)
    try:
        batcher = make_batcher(FakeTransport(Response(status=503), OK), max_batch_events=1)
        async with batcher:
            assert batcher.push(EVENT)
            assert (await batcher.flush()).delivered == 1
        assert batcher.push(EVENT) is Admission.CLOSED
        assert fates(batcher) == {"delivered": 1}
    finally:
        logger.removeHandler(handler)
