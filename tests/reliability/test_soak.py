"""Bar 19: a host pushes through a hostile network, and nothing is lost or left behind."""

import pytest

from tests.reliability import soak
from tests.reliability.rows import Size, assert_rows


def test_a_short_soak() -> None:
    assert_rows(soak.rows, Size.QUICK)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_long_soak() -> None:
    assert_rows(soak.rows, Size.FULL)
