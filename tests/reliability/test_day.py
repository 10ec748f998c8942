"""A day without the server."""

import pytest

from tests.reliability.day import rows
from tests.reliability.rows import Size, assert_rows


def test_a_day_without_the_server_costs_what_does_not_fit() -> None:
    assert_rows(rows, Size.QUICK)


@pytest.mark.soak
def test_a_day_without_the_server_at_full_load_costs_what_does_not_fit() -> None:
    assert_rows(rows, Size.FULL)
