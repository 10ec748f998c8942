"""The tables as pictures, one file for each. Needs matplotlib."""

from collections.abc import Iterable
from pathlib import Path

from benchmarks.report import Report, Table


def draw(reports: Iterable[Report], folder: Path) -> list[Path]:
    """Draw every table that says how, and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for report in reports:
        drawn = [table for table in report.tables if table.plot is not None and table.rows]
        for number, table in enumerate(drawn, 1):
            files.append(folder / f"{report.part}-{number}.svg")
            _draw(table, files[-1])
    return files


def _draw(table: Table, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    plot = table.plot
    assert plot is not None
    titles = [column.title for column in table.columns]
    labels = [", ".join(map(str, row[: plot.labels])) for row in table.rows]
    figure, axes = plt.subplots(figsize=(max(6.0, 0.5 * len(labels) + 3), 5), layout="constrained")
    for number, title in enumerate(plot.columns):
        cells = [row[titles.index(title)] for row in table.rows]
        values = [cell if isinstance(cell, int | float) else 0.0 for cell in cells]
        if plot.kind == "line":
            axes.plot(labels, values, marker="o", label=title)
        else:
            width = 0.8 / len(plot.columns)
            axes.bar([place + number * width for place in range(len(labels))], values, width, label=title)
    if plot.kind != "line":
        axes.set_xticks(range(len(labels)), labels, rotation=60, ha="right")
    if plot.is_logarithmic:
        axes.set_yscale("log")
    axes.set_title(table.title, wrap=True)
    axes.set_xlabel(titles[0])
    axes.legend()
    figure.savefig(file)
    plt.close(figure)
