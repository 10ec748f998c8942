"""What arrives with default settings, and what comes twice: a burst, a steady stream, a slow server.

`python -m benchmarks.loss`. A contestant that offers to wait for room is waited for in the burst, and not in
the stream: a service does not wait for its telemetry.
"""

import sys

from benchmarks import sink
from benchmarks.alone import MeasurementError, alone
from benchmarks.blast import blast
from benchmarks.cli import Plan, main
from benchmarks.paced import paced
from benchmarks.peers.contestant import ALL, HAND_WRITTEN, Options, installed
from benchmarks.report import Column, Report, Table

SLOW = 0.05
"""Seconds that the slow server takes for each request."""
RATE = 5_000


def measure(plan: Plan) -> Report:
    """Return the table."""
    columns = [Column("case"), Column("contestant")]
    columns += [Column(title, ",") for title in ("given", "delivered", "lost", "twice")]
    table = Table(
        "Delivered of those given, default settings", [*columns, Column("seconds of giving", ",.1f")]
    )
    report = Report("loss", [table], {"lost": 0.0, "twice": 0.0})
    burst, seconds = plan.size(50_000, 3_000), 0.4 if plan.quick else 5.0
    for delay, server in ((0.0, ""), (SLOW, f", server takes {SLOW * 1e3:.0f} ms")):
        for name in ("batcher", *installed(HAND_WRITTEN), *plan.peers):
            with sink.running(delay) as url:
                _add(report, f"burst of {burst:,}{server}", name, (url, burst, 0))
                _add(report, f"{RATE:,}/s for {seconds:.1f} s{server}", name, (url, 0, seconds))
    return report


def _add(report: Report, case: str, name: str, what: tuple[str, int, float]) -> None:
    url, burst, seconds = what
    options, rows = Options(url=url), report.tables[0].rows
    try:
        if burst:
            most = min(burst, ALL[name].most_events or burst)
            run = alone(blast, name, options, most)
            given, counts, took = run.given, run.counts, run.seconds
        else:
            steady = alone(paced, name, options, RATE, seconds)
            given, counts, took = steady.given, steady.counts, steady.seconds
    except MeasurementError as error:
        report.tables[0].notes.append(f"{name}, {case}: {error}")
        return
    lost = given - counts.distinct
    rows.append([case, name, given, counts.distinct, lost, counts.twice, took])
    if name == "batcher":
        report.figures["lost"] += lost
        report.figures["twice"] += counts.twice


if __name__ == "__main__":
    sys.exit(main(["loss"]))
