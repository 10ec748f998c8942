"""The memory bar in the gate, and in full with `-m soak`."""

import asyncio

import pytest

from tests.fakes import HANG, FakeTransport, make_batcher
from tests.reliability import memory
from tests.reliability.rows import Size, assert_rows
from tests.virtual_time import now, run_virtually


def test_a_black_hole_costs_no_more_memory_than_the_bound_and_nothing_stays_behind() -> None:
    assert_rows(memory.rows, Size.QUICK)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_minute_of_a_black_hole_and_a_million_events() -> None:
    assert_rows(memory.rows, Size.FULL)


def test_what_callbacks_have_to_be_told_does_not_pile_up_while_the_worker_has_nothing_to_send() -> None:
    """Every evicted event is news for `on_dropped`: piled up, they would take more than the queue may."""
    dropped: list[str] = []

    async def main() -> None:
        batcher = make_batcher(
            FakeTransport(otherwise=HANG),
            max_queue_events=500,
            overflow="drop_oldest",
            on_dropped=lambda event_ids, _reason: dropped.extend(event_ids),
        )
        await batcher.start()
        for number in range(10_000):
            batcher.push({"number": number})
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert now() == 0.0
        evicted = batcher.statistics().dropped["evicted"]
        assert evicted == 9_500
        assert evicted - len(dropped) < 2_000
        await batcher.aclose(timeout=0)

    run_virtually(main)
