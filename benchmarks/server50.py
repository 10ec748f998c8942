"""Events a second to a server that takes 50 ms for each request, with default settings.

`python -m benchmarks.server50`. Only concurrency and the size of batches count here.
"""

import statistics
import sys

from benchmarks import sink
from benchmarks.cli import Plan, main
from benchmarks.loss import SLOW
from benchmarks.peers.contestant import HAND_WRITTEN, VENDORS, installed
from benchmarks.report import Report, spread
from benchmarks.rounds import run_rounds
from benchmarks.throughput import table_of


def measure(plan: Plan) -> Report:
    """Return the table, and the batcher over the best of all others."""
    names = ["nothing", "batcher", *installed(HAND_WRITTEN), *plan.peers]
    events = plan.size(20_000, 3_000)
    with sink.running(SLOW) as url:
        found = run_rounds(names, url, events, plan.turns(3), sized=False)
    table = table_of(found, f"{events:,} events, the server takes {SLOW * 1e3:.0f} ms, default settings")
    report = Report("server50", [table])
    report.figures["lost"] = max(run.given - run.delivered for run in found.runs["batcher"])
    report.figures["twice"] = max(run.counts.twice for run in found.runs["batcher"])
    best = found.best([*HAND_WRITTEN, *VENDORS], lambda run: run.rate)
    if best:
        ratios = found.ratios("batcher", best, lambda run: run.rate)
        report.figures["rate over best peer"] = statistics.median(ratios)
        table.notes.append(f"batcher over {best}, events/s of the same round: {spread(ratios)}")
    return report


if __name__ == "__main__":
    sys.exit(main(["server50"]))
