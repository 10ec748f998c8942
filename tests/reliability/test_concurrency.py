"""How many requests one batcher has under way at a server that serves a few at once."""

import pytest

from tests.reliability.concurrency import rows
from tests.reliability.rows import Size, assert_rows


def test_concurrency_follows_what_the_server_takes() -> None:
    assert_rows(rows, Size.QUICK)


@pytest.mark.soak
def test_concurrency_follows_what_the_server_takes_for_long() -> None:
    assert_rows(rows, Size.FULL)
