"""Key and content show nowhere and go nowhere else; hostile answers, settings and events change nothing."""

import pytest

from tests.reliability.rows import Size, assert_rows
from tests.reliability.security import rows


def test_the_bar_holds() -> None:
    assert_rows(rows, Size.QUICK)


@pytest.mark.soak
def test_the_bar_holds_for_every_status() -> None:
    assert_rows(rows, Size.FULL)
