"""What a part of the suite found: tables for people, figures for the bounds, and both as JSON."""

import statistics
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

Cell = str | int | float | None


class Column(msgspec.Struct, frozen=True):
    """A column of a table: its title, and the format of its numbers."""

    title: str
    form: str = ",.2f"


class Plot(msgspec.Struct, frozen=True):
    """How to draw a table: its first columns along x, and these columns along y."""

    columns: list[str]
    kind: Literal["bar", "line"] = "bar"
    labels: int = 1
    """How many columns name a row."""
    is_logarithmic: bool = False


class Table(msgspec.Struct):
    """Rows under titles, and what they say."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]] = []
    notes: list[str] = []
    plot: Plot | None = None

    def lines(self) -> Iterator[str]:
        """Return the lines of a Markdown table."""
        yield f"### {self.title}"
        yield ""
        yield "| " + " | ".join(column.title for column in self.columns) + " |"
        yield "| --- |" + " ---: |" * (len(self.columns) - 1)
        for row in self.rows:
            cells = (shown(cell, column.form) for cell, column in zip(row, self.columns, strict=True))
            yield "| " + " | ".join(cells) + " |"
        yield ""
        for note in self.notes:
            yield f"- {note}"
        if self.notes:
            yield ""


class Report(msgspec.Struct):
    """What one part found."""

    part: str
    tables: list[Table] = []
    figures: dict[str, float] = {}
    """What the bounds are checked against, by name."""
    has_failed: bool = False


def shown(cell: Cell, form: str) -> str:
    """Return the text of a cell."""
    if cell is None:
        return "-"
    return cell if isinstance(cell, str) else format(cell, form)


def spread(values: Iterable[float], form: str = ",.2f") -> str:
    """Return the median of some values and, in brackets, their least and greatest."""
    ordered = sorted(values)
    low, middle, high = ordered[0], statistics.median(ordered), ordered[-1]
    return f"{middle:{form}} [{low:{form}}..{high:{form}}]"


def percentile(ordered: list[float], share: float) -> float:
    """Return the value below which that share of the ordered values lies; 0 of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
