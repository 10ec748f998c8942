"""Every status is dealt with as agreed, and no request goes out before the server will have it."""

import random

import pytest

from tests.reliability import status_table
from tests.reliability.rows import Size, assert_rows


def test_every_status_is_dealt_with_as_agreed_and_no_request_is_early() -> None:
    assert_rows(status_table.rows, Size.QUICK)


@pytest.mark.soak
def test_every_status_with_every_header_is_dealt_with_as_agreed() -> None:
    assert_rows(status_table.rows, Size.FULL)


@pytest.mark.parametrize("seed", range(5))
def test_the_test_of_kolmogorov_and_smirnov_tells_one_distribution_from_another(seed: int) -> None:
    chance = random.Random(seed)
    even = [chance.random() for _ in range(status_table.DRAWS)]
    assert status_table.ks_p_value(even) > status_table.LEAST_P
    assert status_table.ks_p_value([share**1.2 for share in even]) < status_table.LEAST_P
    assert status_table.ks_p_value([0.1 + 0.9 * share for share in even]) < status_table.LEAST_P
    assert status_table.ks_p_value([0.5] * status_table.DRAWS) < 1e-9


@pytest.mark.parametrize(("distance", "p"), [(1.2239, 0.1), (1.3581, 0.05), (1.6276, 0.01)])
def test_the_test_of_kolmogorov_and_smirnov_knows_its_tables(distance: float, p: float) -> None:
    """Numbers that are all shifted by the distance that the tables give for so little a chance."""
    count = 50_000
    shift = distance / count**0.5
    shares = [min(1.0, place / count + shift) for place in range(count)]
    assert status_table.ks_p_value(shares) == pytest.approx(p, rel=0.02)
