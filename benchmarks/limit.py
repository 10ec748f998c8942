"""The floor: what no client can go below, and how far above it the batcher is.

`python -m benchmarks.limit`. The limit is one encode of each event and a request of aiohttp for each hundred,
four in flight, with bodies that were encoded beforehand. `promises_only` is what keeps the promises to an
event while nothing goes wrong, in as few lines as it takes.
"""

import statistics
import sys

from benchmarks import sink
from benchmarks.cli import Plan, main
from benchmarks.report import Report, spread
from benchmarks.rounds import run_rounds
from benchmarks.throughput import table_of


def measure(plan: Plan) -> Report:
    """Return the table of the limits and the batcher."""
    names = ["nothing", "encode_only", "raw_client", "aiohttp_client", "promises_only", "batcher"]
    with sink.running() as url:
        found = run_rounds(names, url, plan.size(50_000, 3_000), plan.turns(5), sized=True)
    table = table_of(found, "The limit")
    report = Report("limit", [table])
    encodes, ours = found.net("encode_only"), found.net("batcher")
    for client in ("raw_client", "aiohttp_client"):
        floors = [one + other for one, other in zip(encodes, found.net(client), strict=True)]
        ratios = [mine / floor for mine, floor in zip(ours, floors, strict=True)]
        table.notes.append(
            f"encode_only + {client}: {spread(floors)} net encodes; batcher over it: {spread(ratios)}"
        )
        report.figures[f"over {client}"] = statistics.median(ratios)
    least = found.net("promises_only")
    ratios = [mine / floor for mine, floor in zip(ours, least, strict=True)]
    table.notes.append(f"promises_only: {spread(least)} net encodes; batcher over it: {spread(ratios)}")
    report.figures["over promises_only"] = statistics.median(ratios)
    return report


if __name__ == "__main__":
    sys.exit(main(["limit"]))
