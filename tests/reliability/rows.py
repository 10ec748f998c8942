"""What a reliability scenario says about itself: one row for each bar it holds.

A scenario is a module here with a function `rows(size)`, which runs everything it stands for and yields
what came out. The gate runs every scenario in its quick size and asserts its rows; `pytest -m soak` and
`python -m benchmarks.reliability` run the full one. A scenario needs nothing but the package and the
standard library, unless it says so.
"""

import enum
from collections.abc import Callable, Iterator
from typing import TypeAlias

from msgspec import Struct


class Size(enum.Enum):
    """How much of a scenario is run."""

    QUICK = "quick"
    """Seconds: in the gate."""
    FULL = "full"
    """Minutes: what the bar asks for."""


class Row(Struct, frozen=True, kw_only=True):
    """One bar, and whether it held."""

    bar: int
    """Its number among the bars; rows of one number belong together."""
    what: str
    """What was done and looked at, in words."""
    figure: str
    """What came out, with its unit."""
    bound: str
    """What it had to be."""
    holds: bool


Scenario: TypeAlias = Callable[[Size], Iterator[Row]]


def assert_rows(scenario: Scenario, size: Size) -> None:
    """Assert that a scenario has rows and that each holds."""
    rows = list(scenario(size))
    assert rows
    broken = [f"{row.what}: {row.figure}, and not {row.bound}" for row in rows if not row.holds]
    assert not broken, "\n".join(broken)
