"""What the program feels: how long its event loop takes to answer, and its HTTP requests.

`python -m benchmarks.lag`. First an asyncio program that makes 5,000 events a second, then a FastAPI service
that pushes one event per request. `nothing` is the same program without an exporter.
"""

import itertools
import statistics
import sys

from benchmarks import sink
from benchmarks.alone import MeasurementError, alone
from benchmarks.cli import Plan, main
from benchmarks.data import SIZES
from benchmarks.loss import RATE
from benchmarks.paced import Paced, paced
from benchmarks.peers.contestant import HAND_WRITTEN, Options, installed, is_there
from benchmarks.report import Column, Plot, Report, Table, percentile, spread
from benchmarks.rounds import INDISPENSABLE
from benchmarks.service import requests

_SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_LATENCY = [Column(f"{name}, ms", ",.3f") for name in (*_SHARES, "longest")]


def measure(plan: Plan) -> Report:
    """Return a table for each size of event, and one of requests."""
    report = Report("lag")
    others = [*installed(HAND_WRITTEN), *plan.peers]
    with sink.running() as url:
        for label in ("1 KB", "10 KB"):
            report.tables.append(_loop(plan, url, label, others, report.figures))
        others = [*plan.peers] if plan.quick else others
        report.tables.append(_requests(plan, url, others, report.figures))
    return report


def _loop(plan: Plan, url: str, label: str, others: list[str], figures: dict[str, float]) -> Table:
    seconds = 0.5 if plan.quick else 4.0
    columns = [
        Column("contestant"),
        *_LATENCY,
        Column("CPU, % of a core", ",.1f"),
        Column("full collections", ","),
    ]
    columns += [Column("longest collection, ms"), Column("given in, s", ",.1f"), Column("lost", ",")]
    table = Table(f"Lag of the loop, {RATE:,} events of {label} a second for {seconds:.1f} s", columns)
    table.plot = Plot(["p50, ms", "p99, ms", "p99.9, ms"], is_logarithmic=True)
    runs: dict[str, list[Paced]] = {name: [] for name in ("nothing", "batcher", *others)}
    for _ in range(plan.turns(3)):
        for name in list(runs):
            try:
                runs[name].append(alone(paced, name, Options(url=url), RATE, seconds, SIZES[label]))
            except MeasurementError as error:
                if name in INDISPENSABLE:
                    raise
                table.notes.append(f"{name} failed: {error}")
                del runs[name]
    for name, own in runs.items():
        ordered = [[percentile(run.lags, share) for run in own] for share in _SHARES.values()]
        lags = [statistics.median(each) for each in ordered]
        cpu = statistics.median(run.cpu / run.seconds for run in own)
        given_in = statistics.median(run.seconds for run in own)
        lost = 0 if name == "nothing" else max(run.given - run.counts.distinct for run in own)
        full = max(run.full_collections for run in own)
        pause = max(run.longest_pause for run in own)
        longest = max(run.lags[-1] for run in own)
        table.rows.append(
            [name, *(lag * 1e3 for lag in (*lags, longest)), cpu * 100, full, pause * 1e3, given_in, lost]
        )
    pairs = list(zip(runs["batcher"], runs["nothing"], strict=True))
    above = [(percentile(ours.lags, 0.99) - percentile(idle.lags, 0.99)) * 1e3 for ours, idle in pairs]
    table.notes.append(f"batcher less nothing, p99 of the same round, ms: {spread(above, ',.3f')}")
    late = [percentile(run.lags, 0.999) for run in runs["batcher"]]
    figures[f"{label}: p99 above idle, ms"] = statistics.median(above)
    figures[f"{label}: p99.9, ms"] = statistics.median(late) * 1e3
    figures[f"{label}: full collections"] = max(
        ours.full_collections - idle.full_collections for ours, idle in pairs
    )
    return table


def _requests(plan: Plan, url: str, others: list[str], figures: dict[str, float]) -> Table:
    """Two services at a time, with and without an exporter, take turns of a second."""
    rate, seconds = plan.size(400, 200), 1.0
    columns = [Column("contestant"), *_LATENCY, Column("p99 without, ms", ",.3f")]
    columns += [Column("p99 over that without, by slice"), Column("lost", ",")]
    table = Table(f"FastAPI, {rate} requests a second, one push each", columns)
    table.plot = Plot(["p50, ms", "p99, ms", "p99.9, ms"])
    if not (is_there("fastapi") and is_there("uvicorn")):
        table.notes.append("fastapi or uvicorn is not installed: skipped")
        return table
    for name in (*INDISPENSABLE, *others):
        slices = plan.size(40 if name in INDISPENSABLE else 10, 2)
        try:
            run = alone(requests, ["nothing", name], url, rate, slices, seconds)
        except MeasurementError as error:
            table.notes.append(f"{name} failed: {error}")
            continue
        base, own = [sorted(itertools.chain(*each)) for each in run.latencies]
        shown = [percentile(own, share) * 1e3 for share in _SHARES.values()]
        pairs = zip(*run.latencies, strict=True)
        ratios = [percentile(theirs, 0.99) / percentile(without, 0.99) for without, theirs in pairs]
        lost = None if name == "nothing" else run.given - run.counts.distinct
        table.rows.append(
            [name, *shown, own[-1] * 1e3, percentile(base, 0.99) * 1e3, spread(ratios, ",.3f"), lost]
        )
        if name in INDISPENSABLE:
            figures[f"requests: p99 of {name} over nothing"] = statistics.median(ratios)
    table.notes.append("nothing over nothing shows how much of the last ratios is chance")
    return table


if __name__ == "__main__":
    sys.exit(main(["lag"]))
