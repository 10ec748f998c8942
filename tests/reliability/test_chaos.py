"""Bar 1: conservation under seeded chaos."""

import pytest

from tests.reliability import chaos
from tests.reliability.rows import Size, assert_rows


def test_no_seed_violates_anything_and_each_is_the_same_again() -> None:
    assert_rows(chaos.rows, Size.QUICK)


def test_another_seed_is_another_run() -> None:
    assert len({chaos.run_seed(seed).trace for seed in range(20)}) == 20


def test_two_processes_come_to_the_same_as_one() -> None:
    assert list(chaos.run_many(0, 110, 2)) == list(chaos.run_many(0, 110, 1))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_seed_of_many_violates_anything() -> None:
    assert_rows(chaos.rows, Size.FULL)
