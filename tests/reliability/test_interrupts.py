"""A second Ctrl-C, wherever it strikes."""

import pytest

from tests.reliability import interrupts
from tests.reliability.rows import Size, assert_rows


def test_a_second_ctrl_c_closes_the_books_wherever_it_strikes() -> None:
    assert_rows(interrupts.rows, Size.QUICK)


@pytest.mark.soak
def test_a_second_ctrl_c_everywhere() -> None:
    assert_rows(interrupts.rows, Size.FULL)
