"""One bad event, or one limit of the server, costs the others nothing."""

import pytest

from tests.reliability import poison
from tests.reliability.rows import Size, assert_rows


def test_poison_and_oversize_cost_nobody_else_anything() -> None:
    assert_rows(poison.rows, Size.QUICK)


@pytest.mark.soak
def test_poison_and_oversize_at_every_place_cost_nobody_else_anything() -> None:
    assert_rows(poison.rows, Size.FULL)


@pytest.mark.parametrize("places", [{0, 1}, {3, 997}, set(range(8, 17))])
def test_a_search_that_loses_good_events_would_be_seen(places: set[int]) -> None:
    """The scenario's own eyes: a search is exact only if exactly the poison is dropped."""
    found = poison.Search(places)
    assert found.is_exact
    assert found.delivered == poison.BATCH - len(places)
    assert not poison.Search(range(poison.BATCH)).delivered
