"""Hangs at exit and flushes that lie: what users of other exporters complained about. In virtual time, in
which waiting for something that will never happen is an error.
"""

import asyncio
from typing import Any

import pytest

from honeyhive_batcher import Admission
from honeyhive_batcher.core.model import Response
from tests.fakes import HANG, OK, REFUSED, FakeTransport, Step, check_ledger, fates, make_batcher
from tests.virtual_time import VirtualTimeLoop, now

pytestmark = pytest.mark.anyio

EVENT = {"model": "gpt-4o"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


async def test_closing_never_waits_for_ever_and_a_closed_batcher_refuses() -> None:
    """`shutdown()` hung for ever on a queue that a closed client still filled
    (langfuse/langfuse-python#1799).
    """
    batcher = make_batcher(FakeTransport(otherwise=HANG), max_batch_events=1, max_in_flight=2)
    await batcher.start()
    for _ in range(5):
        assert batcher.push(EVENT)
    closing = asyncio.create_task(batcher.aclose(timeout=5))
    await asyncio.sleep(1)
    assert batcher.push(EVENT) is Admission.CLOSED
    await closing
    assert now() == 5.0
    assert batcher.push(EVENT) is Admission.CLOSED
    await batcher.aclose()
    assert (await batcher.flush()).held == 0
    assert now() == 5.0
    assert fates(batcher) == {"unconfirmed": 2, "shutdown": 3}


async def test_a_flush_completes_whatever_an_event_was() -> None:
    """One item too large to be sent was never counted off, so that every later flush waited for ever
    (PostHog/posthog-python#308).
    """
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    transport = FakeTransport(Response(status=413), Response(status=400))
    batcher = make_batcher(
        transport,
        max_batch_events=1,
        max_in_flight=1,
        max_event_bytes=2048,
        before_send=lambda event: None if event == {} else event,
    )
    async with batcher:
        assert batcher.push({**EVENT, "event_name": "the server finds it too large"})
        assert batcher.push({**EVENT, "event_name": "the server refuses it"})
        assert batcher.push({**EVENT, "inputs": "x" * 4096}) is Admission.TOO_LARGE
        assert batcher.push(["no event"]) is Admission.NOT_AN_EVENT
        assert batcher.push({}) is Admission.FILTERED
        assert batcher.push({**EVENT, "inputs": cyclic, "outputs": object()})
        result = await batcher.flush()
        assert (result.delivered, result.dropped, result.held) == (1, 2, 0)
    assert fates(batcher) == {"delivered": 1, "too_large": 1, "rejected": 1}


@pytest.mark.parametrize("trouble", [REFUSED, Response(status=503)], ids=["refused", "503"])
async def test_closing_interrupts_every_sleep(trouble: Step) -> None:
    """A process never exited, because shutdown waited for the sleep between two retries
    (open-telemetry/opentelemetry-python#2284, open-telemetry/opentelemetry-python#4638).
    """
    transport = FakeTransport(trouble, trouble, trouble)
    batcher = make_batcher(
        transport, max_batch_events=1, backoff_base=3600, backoff_max=3600, max_elapsed=10_000
    )
    await batcher.start()
    for _ in range(3):
        assert batcher.push(EVENT)
    await asyncio.sleep(10)
    assert now() == 10.0
    assert fates(batcher) == {"held": 3}
    await batcher.aclose()
    assert now() == 10.0
    assert fates(batcher) == {"delivered": 3}


async def test_closing_interrupts_the_sleep_also_when_the_server_stays_away() -> None:
    """The same, with a server that never comes back (open-telemetry/opentelemetry-python#2284)."""
    batcher = make_batcher(
        FakeTransport(otherwise=REFUSED), backoff_base=3600, backoff_max=3600, max_elapsed=10_000
    )
    await batcher.start()
    assert batcher.push(EVENT)
    await asyncio.sleep(10)
    await batcher.aclose(timeout=5)
    assert now() <= 15.0
    assert fates(batcher) == {"shutdown": 1}


@pytest.mark.parametrize("down", [REFUSED, HANG], ids=["refused", "hangs"])
async def test_a_server_that_is_down_holds_nobody_up_for_ever(down: Step) -> None:
    """The producer appeared to hang for ever when the broker was down (aio-libs/aiokafka#1101)."""
    batcher = make_batcher(FakeTransport(otherwise=down), max_queue_events=1, flush_interval=0)
    await batcher.start()
    assert batcher.push(EVENT)
    assert batcher.push(EVENT) is Admission.QUEUE_FULL
    assert (await batcher.flush(timeout=3)).held == 1
    assert now() == 3.0
    with pytest.raises(TimeoutError):
        await batcher.put(EVENT, timeout=4)
    assert now() == 7.0
    await batcher.aclose(timeout=5)
    assert now() <= 12.0
    assert check_ledger(batcher).held == 0


@pytest.mark.parametrize("part", ["worker", "send"])
@pytest.mark.parametrize("at", [0.0, 0.5, 1.5], ids=["at once", "while it waits", "while it sends"])
async def test_somebody_who_cancels_the_tasks_leaves_nobody_waiting(part: str, at: float) -> None:
    """Everything hung when the sender's task was cancelled from outside (aio-libs/aiokafka#1039)."""
    batcher = make_batcher(FakeTransport(latency=1))
    await batcher.start()
    for _ in range(3):
        assert batcher.push(EVENT)
    waiting = asyncio.create_task(batcher.flush()) if at else None
    if at:
        await asyncio.sleep(at)
    for task in asyncio.all_tasks():
        if task.get_name() == f"honeyhive_batcher.{part}":
            task.cancel()
    if waiting is not None:
        assert (await waiting).held == 0
    await batcher.aclose()
    assert fates(batcher) == {"delivered": 3}


async def test_a_flush_says_what_was_lost_and_keeps_its_time() -> None:
    """A flush said yes although events had been thrown away for want of room, and another ignored its
    timeout (launchdarkly/python-server-sdk#472, open-telemetry/opentelemetry-python#4982).
    """
    transport = FakeTransport(OK, HANG, latency=1)
    batcher = make_batcher(
        transport, max_queue_events=2, overflow="drop_oldest", max_batch_events=1, max_in_flight=1
    )
    await batcher.start()
    assert batcher.push({**EVENT, "event_id": "under way"})
    assert batcher.push({**EVENT, "event_id": "evicted"})
    await asyncio.sleep(0.5)
    flush = asyncio.create_task(batcher.flush())
    await asyncio.sleep(0)
    assert batcher.push({**EVENT, "event_id": "hangs"})
    result = await flush
    assert now() == 1.0
    assert not result
    assert (result.delivered, result.dropped, result.held) == (1, 1, 0)
    result = await batcher.flush(timeout=2)
    assert now() == 3.0
    assert not result
    assert result.held == 1
    await batcher.aclose(timeout=0)
