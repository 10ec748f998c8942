"""What the log says about an hour of trouble."""

import pytest

from tests.reliability.loglines import rows
from tests.reliability.rows import Size, assert_rows


def test_an_hour_of_trouble_is_told_in_a_few_lines() -> None:
    assert_rows(rows, Size.QUICK)


@pytest.mark.soak
def test_a_flood_of_refused_events_is_told_in_a_few_lines() -> None:
    assert_rows(rows, Size.FULL)
