"""A fleet of batchers, and one server that is away for a minute."""

import pytest

from tests.reliability.rows import Size, assert_rows
from tests.reliability.storm import rows


def test_an_outage_is_no_storm() -> None:
    assert_rows(rows, Size.QUICK)


@pytest.mark.soak
def test_an_outage_is_no_storm_for_a_large_fleet() -> None:
    assert_rows(rows, Size.FULL)
