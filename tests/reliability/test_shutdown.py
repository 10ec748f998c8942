"""The shutdown bar in the gate, and in full with `-m soak`."""

import pytest

from tests.reliability import shutdown
from tests.reliability.rows import Size, assert_rows


def test_closing_is_on_time_and_whole_whatever_strikes() -> None:
    assert_rows(shutdown.rows, Size.QUICK)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_strike_in_every_turn_and_many_interrupts() -> None:
    assert_rows(shutdown.rows, Size.FULL)
