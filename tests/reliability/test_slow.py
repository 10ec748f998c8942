"""Bar 14: servers that are slow, and answers that never end, cost neither time nor memory."""

import pytest

from tests.reliability import slow
from tests.reliability.rows import Size, assert_rows


def test_slow_servers_and_bombs_with_many_requests_under_way() -> None:
    assert_rows(slow.rows, Size.QUICK)


@pytest.mark.soak
def test_timeouts_hold_and_the_loop_is_never_held_up() -> None:
    assert_rows(slow.rows, Size.FULL)
