"""The memory bar in the gate, and in full with `-m soak`."""

import pytest

from tests.reliability import memory
from tests.reliability.rows import Size, assert_rows


def test_a_black_hole_costs_no_more_memory_than_the_bound_and_nothing_stays_behind() -> None:
    assert_rows(memory.rows, Size.QUICK)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_minute_of_a_black_hole_and_a_million_events() -> None:
    assert_rows(memory.rows, Size.FULL)
