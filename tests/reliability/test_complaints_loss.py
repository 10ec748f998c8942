"""Silent loss: what users of other exporters complained about, and what must not happen here. In virtual
time.
"""

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest

from honeyhive_batcher import Admission
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.model import Response
from tests.fakes import OK, FakeTransport, Step, fates, make_batcher
from tests.virtual_time import VirtualTimeLoop, now

pytestmark = pytest.mark.anyio

EVENT = {"model": "gpt-4o"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


def ids(transport: FakeTransport) -> Counter[str]:
    return Counter(str(event["event_id"]) for sent in transport.sent for event in sent.events)


@pytest.mark.parametrize(
    ("first", "times"),
    [(OK, 1), (ConnectionError("the exporter raised"), 2), (Response(status=503), 2)],
    ids=["ok", "raises", "503"],
)
async def test_what_is_pushed_during_a_flush_is_kept_and_what_failed_is_sent_again(
    first: Step, times: int
) -> None:
    """Events that came during a flush were cleared away with those it had sent, and a send that failed was
    taken for a success (BerriAI/litellm#38904).
    """
    transport = FakeTransport(first, latency=1)
    async with make_batcher(transport, backoff_base=0.1) as batcher:
        for number in range(5):
            assert batcher.push({**EVENT, "event_id": f"before {number}"})
        flush = asyncio.create_task(batcher.flush())
        await asyncio.sleep(0.5)
        for number in range(5):
            assert batcher.push({**EVENT, "event_id": f"during {number}"})
        assert fates(batcher) == {"held": 10}
        assert (await flush).delivered == 5
        assert (await batcher.flush()).held == 0
    assert fates(batcher) == {"delivered": 10}
    assert ids(transport) == {f"before {n}": times for n in range(5)} | {f"during {n}": 1 for n in range(5)}


@pytest.mark.parametrize(
    "error",
    [ValueError("no JSON"), RuntimeError("no loop"), TimeoutError(), MemoryError(), asyncio.CancelledError()],
    ids=repr,
)
async def test_whatever_sending_raises_sending_goes_on(error: BaseException) -> None:
    """The thread that sent traces died of an error, and the client stopped posting without a word
    (langchain-ai/langsmith-sdk#1630, openai/openai-agents-python#3216).
    """
    transport = FakeTransport(error, error, OK, error)
    async with make_batcher(transport, max_batch_events=1) as batcher:
        for _ in range(20):
            assert batcher.push(EVENT)
            await asyncio.sleep(10)
        assert fates(batcher) == {"delivered": 20}
        assert batcher.statistics().endpoint == "healthy"
        assert batcher.statistics().last_error is not None


async def test_a_worker_that_ends_by_a_bug_says_so_and_takes_nothing_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The same, should the worker itself fail: it says so (langchain-ai/langsmith-sdk#1630)."""

    def fail(_engine: Engine, _now: float) -> None:
        raise ZeroDivisionError

    lost: list[tuple[tuple[str, ...], str]] = []
    batcher = make_batcher(FakeTransport(), on_dropped=lambda *what: lost.append(what))
    await batcher.start()
    monkeypatch.setattr(Engine, "poll", fail)
    assert batcher.push({**EVENT, "event_id": "lost"})
    await asyncio.sleep(5)
    assert fates(batcher) == {"internal": 1}
    assert lost == [(("lost",), "internal")]
    assert batcher.push(EVENT) is Admission.CLOSED
    assert batcher.statistics().last_error == "internal error (ZeroDivisionError)"
    (line,) = lines(caplog, logging.ERROR)
    assert "worker failed" in line
    await batcher.aclose()


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
async def test_a_queue_that_overflows_says_so_counts_it_and_does_not_flood_the_log(
    overflow: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Four fifths of all events fell out of a full queue, and a debug line was all that said so
    (langfuse/langfuse#15374).
    """
    evicted: list[str] = []

    def on_dropped(event_ids: tuple[str, ...], reason: str) -> None:
        assert reason == "evicted"
        evicted.extend(event_ids)

    batcher = make_batcher(
        FakeTransport(Response(status=503, retry_after=3600)),
        max_queue_events=100,
        overflow=overflow,
        on_dropped=on_dropped,
        max_elapsed=10_000,
    )
    answers: Counter[Admission] = Counter()
    async with batcher:
        for second in range(600):
            answers.update([batcher.push({**EVENT, "event_id": f"{second}"})])
            await asyncio.sleep(1)
        lost = 600 - fates(batcher)["held"]
        assert lost == 500
        numbers = batcher.statistics()
        if overflow == "drop_newest":
            assert numbers.refused == {"queue_full": lost}
            assert answers[Admission.QUEUE_FULL] == lost
        else:
            assert numbers.dropped == {"evicted": lost}
            assert len(set(evicted)) == len(evicted) == lost
        await asyncio.sleep(900)  # the longest pause between two such lines
        said = [line for line in lines(caplog) if line.startswith("events lost")]
        assert 4 <= len(said) <= now() / 60 + 1
        name = "refused (queue_full)" if overflow == "drop_newest" else "evicted"
        assert sum(int(line.partition(": ")[2].partition(f" {name}")[0]) for line in said) == lost
