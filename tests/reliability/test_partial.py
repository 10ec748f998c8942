"""What the server said it has is never sent again, whatever else it says."""

import pytest

from tests.reliability import partial
from tests.reliability.rows import Size, assert_rows


def test_no_partial_success_loses_or_doubles_an_event() -> None:
    assert_rows(partial.rows, Size.QUICK)


@pytest.mark.soak
def test_no_partial_success_of_all_there_are_loses_or_doubles_an_event() -> None:
    assert_rows(partial.rows, Size.FULL)


def test_every_subset_is_among_the_cases() -> None:
    assert len(set(partial.SUBSETS)) == 1024
