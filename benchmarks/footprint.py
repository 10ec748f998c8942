"""What the batcher takes when it has little to do: memory of what waits, idling, importing, a first byte.

`python -m benchmarks.footprint`.
"""

import statistics
import subprocess
import sys
import time

from benchmarks import sink, still
from benchmarks.alone import alone
from benchmarks.cli import Plan, main
from benchmarks.peers.contestant import HAND_WRITTEN, installed
from benchmarks.report import Column, Report, Table, percentile

_SOON = 0.1
_KEEP_ALIVE = 15.0
"""Seconds for which aiohttp keeps a connection that nobody uses, and a timer with it."""


def measure(plan: Plan) -> Report:
    """Return a table of single figures, and one of idling."""
    report = Report("footprint")
    with sink.running() as url:
        report.tables = [_single(plan, url, report.figures), _idle(plan, url, report.figures)]
    return report


def _single(plan: Plan, url: str, figures: dict[str, float]) -> Table:
    table = Table("Single figures", [Column("what"), Column("median"), Column("worst"), Column("of", ",")])
    events = plan.size(100_000, 5_000)
    held = [alone(still.held_bytes, events) for _ in range(plan.turns(3))]
    _add(table, f"memory for each of {events:,} waiting events of 1,062 bytes, bytes", held)
    figures["bytes per waiting event"] = statistics.median(held)

    times = plan.size(300, 20)
    bytes_at = alone(still.first_byte, url, times)
    _add(table, "one event, idle batcher: flush() to its first byte at the server, ms", bytes_at, 1e3)
    figures["first byte, ms"] = statistics.median(bytes_at) * 1e3

    turns = alone(still.flush_turns, url, times)
    _add(table, "longest turn of the loop in a flush of a full batch, ms", turns, 1e3)
    figures["longest turn, ms"] = statistics.median(turns) * 1e3
    figures["longest turn, p99, ms"] = percentile(turns, 0.99) * 1e3

    modules = {
        "asyncio and msgspec": "asyncio, msgspec",
        "the package": "honeyhive_batcher",
        "aiohttp": "aiohttp",
        "both": "honeyhive_batcher, aiohttp",
    }
    for label, module in modules.items():
        statement = f"import {module}"
        pairs = [(_seconds(statement), _seconds("pass")) for _ in range(plan.size(15, 3))]
        taken = [imported - bare for imported, bare in pairs]
        _add(table, f"import of {label}, above bare Python, ms", taken, 1e3)
        figures[f"import of {label}, ms"] = statistics.median(taken) * 1e3
    return table


def _add(table: Table, label: str, values: list[float], scale: float = 1.0) -> None:
    table.rows.append([label, statistics.median(values) * scale, max(values) * scale, len(values)])


def _seconds(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - began


def _idle(plan: Plan, url: str, figures: dict[str, float]) -> Table:
    seconds = plan.size(5, 1)
    columns = [Column("contestant"), Column("when"), Column("timer of the loop")]
    table = Table(f"Idle for {seconds} s", [*columns, Column("wake-ups", ","), Column("CPU us/s", ",.0f")])
    table.notes.append(f"aiohttp keeps unused connections for {_KEEP_ALIVE:.0f} s, and a timer for as long")
    states = {"before anything was sent": None, "after a batch was delivered": _SOON}
    if not plan.quick:
        states["after that, and without connections"] = _KEEP_ALIVE + 5
    for name in ("nothing", "batcher", *installed(HAND_WRITTEN), *plan.peers):
        for when, pause in states.items():
            run = alone(still.idle, name, url, float(seconds), pause)
            armed = "armed" if run.has_timer else "none"
            table.rows.append([name, when, armed, run.wake_ups, run.cpu / seconds * 1e6])
            if name == "batcher":
                figures["wake-ups"] = figures.get("wake-ups", 0) + run.wake_ups
                if pause != _SOON:  # then aiohttp's own timer is armed
                    figures["timers armed"] = figures.get("timers armed", 0) + run.has_timer
    return table


if __name__ == "__main__":
    sys.exit(main(["footprint"]))
