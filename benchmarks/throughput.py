"""Events to a server on another core: events a second and CPU for each, side by side.

`python -m benchmarks.throughput`. `nothing` makes the events and throws them away: its cost is taken off
the others ("net"). `promises_only` is the least that keeps the promises, see `limit`. Those that offer to
wait for room are waited for; the queues of the others are made large enough for all events, where they can
be. `loss` and `server50` are about default settings.
"""

import statistics
import sys

from benchmarks import sink
from benchmarks.cli import Plan, main
from benchmarks.peers.contestant import HAND_WRITTEN, VENDORS, installed
from benchmarks.report import Column, Plot, Report, Table, spread
from benchmarks.rounds import Rounds, run_rounds

_COLUMNS = [
    Column("contestant"),
    Column("events/s", ",.0f"),
    Column("least..most"),
    Column("net encodes/event"),
    Column("CPU us/event"),
    Column("requests", ","),
    Column("bytes/event", ",.0f"),
    Column("peak memory, MiB", ",.1f"),
    Column("full collections", ","),
    Column("longest collection, ms"),
    Column("given", ","),
    Column("delivered", ","),
    Column("twice", ","),
]


def measure(plan: Plan) -> Report:
    """Return the table and the ratios."""
    names = ["nothing", "promises_only", "batcher", *installed(HAND_WRITTEN), *plan.peers]
    events = plan.size(50_000, 3_000)
    with sink.running() as url:
        found = run_rounds(names, url, events, plan.turns(5), sized=True)
    table = table_of(found, f"{events:,} events end to end")
    report = Report("throughput", [table], {})
    _compare(found, report, table)
    return report


def table_of(found: Rounds, title: str) -> Table:
    """Return a row for each contestant: medians over the rounds, the worst for what was lost."""
    rounds = max(len(runs) for runs in found.runs.values())
    table = Table(
        f"{title}, medians of {rounds} rounds", _COLUMNS, plot=Plot(["events/s"], is_logarithmic=True)
    )
    for name, runs in found.runs.items():
        rates = [run.rate for run in runs]
        worst = min(runs, key=lambda run: run.delivered)
        table.rows.append(
            [
                name,
                statistics.median(rates),
                f"{min(rates):,.0f}..{max(rates):,.0f}",
                statistics.median(found.net(name)),
                statistics.median(run.cpu / (run.delivered or run.given) * 1e6 for run in runs),
                int(statistics.median(run.counts.requests for run in runs)),
                statistics.median(run.counts.bytes / (run.delivered or 1) for run in runs),
                statistics.median(run.peak_growth for run in runs) / 2**20,
                max(run.full_collections for run in runs),
                max(run.longest_pause for run in runs) * 1e3,
                worst.given,
                worst.delivered,
                max(run.counts.twice for run in runs),
            ]
        )
        if worst.counts.requests and worst.delivered < worst.given:
            table.notes.append(f"{name} lost {worst.given - worst.delivered:,} of {worst.given:,} events")
        table.notes += [f"{name}: unreadable: {line}" for line in runs[-1].counts.refused[:1]]
    table.notes += [f"{name} failed: {why}" for name, why in found.failures.items()]
    return table


def _compare(found: Rounds, report: Report, table: Table) -> None:
    figures, rates = report.figures, [(name, name) for name in HAND_WRITTEN if name in found.runs]
    figures["net encodes"] = statistics.median(found.net("batcher"))
    pairs = zip(found.net("batcher"), found.net("promises_only"), strict=True)
    ratios = [ours / least for ours, least in pairs]
    figures["cost over the promises' floor"] = statistics.median(ratios)
    table.notes.append(f"batcher over promises_only, net encodes of the same round: {spread(ratios)}")
    figures["lost"] = max(run.given - run.delivered for run in found.runs["batcher"])
    figures["twice"] = max(run.counts.twice for run in found.runs["batcher"])
    figures["full collections"] = max(
        ours.full_collections - base.full_collections
        for ours, base in zip(found.runs["batcher"], found.runs["nothing"], strict=True)
    )
    best = found.best([*VENDORS], lambda run: run.rate)
    cheapest = found.best([*VENDORS], lambda run: -run.encodes)
    rates += [("best vendor", best)] if best else []
    rates += [("honeyhive", "honeyhive")] if "honeyhive" in found.runs else []
    for label, name in rates:
        ratios = found.ratios("batcher", name, lambda run: run.rate)
        figures[f"rate over {label}"] = statistics.median(ratios)
        table.notes.append(f"batcher over {name}, events/s of the same round: {spread(ratios)}")
    costs = [("orjson_loop", "orjson_loop")] if "orjson_loop" in found.runs else []
    for label, name in costs + ([("best vendor", cheapest)] if cheapest else []):
        pairs = zip(found.net("batcher"), found.net(name), strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        figures[f"cost over {label}"] = statistics.median(ratios)
        table.notes.append(f"batcher over {name}, net encodes of the same round: {spread(ratios)}")


if __name__ == "__main__":
    sys.exit(main(["throughput"]))
