"""Bar 1: conservation under seeded chaos."""

import pytest

from tests.reliability import chaos
from tests.reliability.rows import Size, assert_rows


def test_no_seed_violates_anything_and_each_is_the_same_again() -> None:
    assert_rows(chaos.rows, Size.QUICK)


def test_processes_with_other_hash_seeds_come_to_the_same() -> None:
    here = list(chaos.run_many(0, 40, 1))
    assert list(chaos.run_many(0, 40, 2)) == here
    assert len({outcome.trace for outcome in here}) > 30  # a program that is never started has no trace


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_seed_of_many_violates_anything() -> None:
    assert_rows(chaos.rows, Size.FULL)
