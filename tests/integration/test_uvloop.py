"""The same under uvloop, where it is installed."""

import asyncio
from typing import Any

import pytest

from honeyhive_batcher import Batcher
from honeyhive_batcher.testing import Answer, collector
from tests.fakes import fates

uvloop = pytest.importorskip("uvloop")

EVENT = {"model_name": "gpt-4o"}


async def deliver() -> None:
    async with collector() as hive:
        hive.script(Answer.refused(503, retry_after="0"), Answer.dropped(stored=False))
        async with Batcher(
            **hive.settings(), max_queue_events=50, max_batch_events=10, backoff_base=0.01
        ) as batcher:
            for _ in range(500):
                await batcher.put(EVENT, timeout=10)
            assert (await batcher.flush(timeout=10)).ok
            await asyncio.to_thread(batcher.push, EVENT)
        assert fates(batcher) == {"delivered": 501}
        assert hive.stats().distinct_events == 501


async def forget() -> Batcher:
    batcher = Batcher(test_mode=True, flush_interval=60)
    await batcher.start()
    batcher.push(EVENT)
    return batcher


def run(main: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def test_everything_is_delivered() -> None:
    run(deliver())


def test_what_a_program_forgot_to_close_is_delivered_at_its_end() -> None:
    batcher = run(forget())
    assert fates(batcher) == {"delivered": 1}
    run(batcher.aclose())
