"""Wherever Python code may run, nothing is lost, doubled or said that need not be."""

import pytest

from honeyhive_batcher.testing import collector_in_thread
from tests.reliability import host_programs
from tests.reliability.host_programs import PARTS
from tests.reliability.rows import Size, assert_rows


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_nothing_is_lost_and_nothing_doubled(part: host_programs.Part) -> None:
    with collector_in_thread() as hive:
        assert_rows(lambda size: part(hive, size), Size.QUICK)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_nothing_is_lost_and_nothing_doubled_at_length() -> None:
    assert_rows(host_programs.rows, Size.FULL)
