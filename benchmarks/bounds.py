"""What the suite holds the batcher to: ratios of one run, counts, and a few durations.

`python -m benchmarks` checks them at its end, a part alone those that it measures, and
`python -m benchmarks.bounds FILE...` those in what `--json` wrote. What was not measured, because a peer is
not installed, is neither passed nor failed, and says so.
"""

import operator
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from benchmarks.report import Column, Report, Table


class Bound(msgspec.Struct, frozen=True):
    """One figure and what it may be."""

    part: str
    figure: str
    """Its name in that part's report."""
    what: str
    sign: str
    limit: float
    is_count: bool = False
    """Whether it holds on any machine and in the shortest run."""

    def holds(self, measured: float) -> bool:
        """Return whether a figure is within it."""
        signs: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}
        return signs[self.sign](measured, self.limit)


_DOCUMENTED = "push of the documentation's event"
_EVENT = "CPU for an event delivered"
_RATE = "events/s end to end"

BOUNDS = (
    Bound("push", "median", f"{_DOCUMENTED}, median, in encodes of it", "<=", 2.4),
    Bound("push", "p99", f"{_DOCUMENTED}, p99, in encodes of it", "<=", 9.0),
    Bound("throughput", "net encodes", f"{_EVENT}, in encodes", "<=", 4.3),
    Bound("throughput", "cost over orjson_loop", f"{_EVENT}, over the orjson loop", "<=", 1.0),
    Bound("throughput", "cost over best vendor", f"{_EVENT}, over the best vendor's exporter", "<=", 1 / 9),
    Bound("throughput", "rate over orjson_loop", f"{_RATE}, over the orjson loop", ">=", 1.15),
    Bound("throughput", "rate over usual_loop", f"{_RATE}, over the usual loop", ">=", 5.5),
    Bound("throughput", "rate over best vendor", f"{_RATE}, over the best vendor's exporter", ">=", 8.0),
    Bound("throughput", "rate over honeyhive", f"{_RATE}, over HoneyHive's own client", ">=", 40.0),
    Bound("throughput", "lost", "events lost end to end", "<=", 0, is_count=True),
    Bound("throughput", "twice", "events that came twice end to end", "<=", 0, is_count=True),
    Bound("throughput", "full collections", "full garbage collections caused end to end", "<=", 0),
    Bound("server50", "rate over best peer", "events/s to a server of 50 ms, over the best peer", ">=", 1.5),
    Bound("server50", "lost", "events lost to a server of 50 ms", "<=", 0, is_count=True),
    Bound("server50", "twice", "events that came twice to a server of 50 ms", "<=", 0, is_count=True),
    Bound("loss", "lost", "events lost from bursts and streams", "<=", 0, is_count=True),
    Bound("loss", "twice", "events of them that came twice", "<=", 0, is_count=True),
    Bound("lag", "1 KB: p99 above idle, ms", "lag at 5,000 events/s, p99 above idle, ms", "<=", 0.25),
    Bound("lag", "1 KB: p99.9, ms", "lag at 5,000 events/s, p99.9, ms", "<=", 2.0),
    Bound("lag", "10 KB: p99 above idle, ms", "the same with 10 KB, p99 above idle, ms", "<=", 1.0),
    Bound("lag", "1 KB: full collections", "full collections caused at 5,000 events/s", "<=", 0),
    Bound(
        "lag", "requests: p99 of batcher over nothing", "p99 of FastAPI's requests over without", "<=", 1.02
    ),
    Bound("footprint", "longest turn, ms", "longest turn in a flush of a full batch, median, ms", "<=", 0.5),
    Bound("scale", "sessions alive", "cost of an event with most sessions alive, over one", "<=", 1.3),
    Bound("scale", "events held before", "cost of an event with most events held, over none", "<=", 1.3),
    Bound("footprint", "bytes per waiting event", "memory of a waiting event of 1,062 bytes", "<=", 1_300),
    Bound("footprint", "timers armed", "timers armed when idle", "<=", 0),
    Bound("footprint", "wake-ups", "wake-ups when idle", "<=", 0),
    Bound("footprint", "import of the package, ms", "import above bare Python, ms", "<=", 100.0),
    Bound("footprint", "first byte, ms", "flush() of one event to its first byte, ms", "<=", 3.0),
)


def check(reports: Iterable[Report]) -> tuple[Table, list[Bound]]:
    """Return a row for each bound of the parts that ran, and the bounds that do not hold."""
    figures = {report.part: report.figures for report in reports}
    table = Table("Bounds", [Column("figure"), Column("bound"), Column("measured", ",.3f"), Column("")])
    failed = []
    for bound in BOUNDS:
        if bound.part not in figures:
            continue
        measured = figures[bound.part].get(bound.figure)
        if measured is None:
            verdict = "not measured"
        elif bound.holds(measured):
            verdict = "pass"
        else:
            verdict = "FAIL"
            failed.append(bound)
        table.rows.append([bound.what, f"{bound.sign} {bound.limit:,.4g}", measured, verdict])
    return table, failed


def main(files: list[str]) -> int:
    """Print the bounds of what earlier runs wrote."""
    reports = [
        report for file in files for report in msgspec.json.decode(Path(file).read_bytes(), type=list[Report])
    ]
    table, failed = check(reports)
    print("\n".join(table.lines()))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
