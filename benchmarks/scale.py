"""How the cost of an event grows with what else there is: sessions, waiting events, threads, settings.

`python -m benchmarks.scale`. Every row runs once a round; ratios to the first row are of the same round.
"""

import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial

from benchmarks import crowd, sink
from benchmarks.alone import MeasurementError, alone
from benchmarks.blast import blast
from benchmarks.cli import Plan, main
from benchmarks.peers.contestant import Options
from benchmarks.report import Column, Plot, Report, Table, spread

Measurement = Callable[[str], crowd.Crowd]
Growing = Callable[[str, int, int], crowd.Crowd]


def measure(plan: Plan) -> Report:
    """Return a table for each thing that may grow."""
    report = Report("scale")
    events = plan.size(20_000, 2_000)
    sessions = [1, 10, 100, 1_000, 10_000] if not plan.quick else [1, 100]
    depths = [0, 1_000, 10_000, 100_000] if not plan.quick else [0, 1_000]
    with sink.running() as url:
        for title, function, values in (
            ("sessions alive, an event waiting in all but one", crowd.sessions_alive, sessions),
            ("sessions in turn, a body each", crowd.sessions_in_turn, sessions),
            ("events held before", crowd.held, depths),
            ("producer threads", crowd.threads, [1, 2, 4, 8] if not plan.quick else [1, 2]),
        ):
            rows = {f"{value:,}": partial(_crowd, function, value, events) for value in values}
            table, ratios = _table(title, rows, url, plan.turns(3))
            report.tables.append(table)
            if ratios:
                report.figures[title.partition(",")[0]] = ratios[-1]
        for name, choices in _settings(plan).items():
            rows = {str(choice): partial(_setting, {name: choice}, events) for choice in choices}
            report.tables.append(_table(name, rows, url, plan.turns(3))[0])
    report.tables[-1].notes.append("the events differ in a number only: how well they compress means nothing")
    return report


def _settings(plan: Plan) -> dict[str, list[int | str]]:
    return {
        "max_batch_events": [1, 10, 100, 500, 1_000] if not plan.quick else [10, 100],
        "max_in_flight": [1, 2, 4, 8, 16] if not plan.quick else [1, 16],
        "compression": ["none", "gzip", "zstd"],
    }


def _crowd(
    function: Callable[[str, int, int], crowd.Crowd], value: int, events: int, url: str
) -> crowd.Crowd:
    return alone(function, url, value, events)


def _setting(settings: dict[str, int | str], events: int, url: str) -> crowd.Crowd:
    base = alone(blast, "nothing", Options(url=url), events)
    run = alone(blast, "batcher", Options(url=url, settings=settings), events)
    return crowd.Crowd(run.encodes - base.encodes, run.given, run.counts)


def _table(title: str, rows: Mapping[str, Measurement], url: str, rounds: int) -> tuple[Table, list[float]]:
    """Return the table, and the median of each row's cost over that of the first."""
    columns = [
        Column(title),
        Column("net encodes/event"),
        Column("over the first row"),
        Column("requests", ","),
    ]
    table = Table(f"Cost by {title}", [*columns, Column("bytes/event", ",.0f"), Column("lost", ",")])
    table.plot = Plot(["net encodes/event"], kind="line")
    runs: dict[str, list[crowd.Crowd]] = {}
    for number in range(rounds):
        for label, run in rows.items():
            if number and label not in runs:
                continue  # it failed in the first round
            try:
                runs.setdefault(label, []).append(run(url))
            except MeasurementError as error:
                runs.pop(label, None)
                table.notes.append(f"{title} {label} skipped: {error}")
    first = next(iter(runs.values()), [])
    medians = []
    for label, own in runs.items():
        ratios = [mine.net / base.net for mine, base in zip(own, first, strict=True)]
        medians.append(statistics.median(ratios))
        last = own[-1]
        size = last.counts.bytes / max(1, last.counts.distinct)
        lost = max(run.given - run.counts.distinct for run in own)
        net = statistics.median(run.net for run in own)
        table.rows.append([label, net, spread(ratios), last.counts.requests, size, lost])
    return table, medians


if __name__ == "__main__":
    sys.exit(main(["scale"]))
