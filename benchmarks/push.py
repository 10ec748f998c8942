"""What one `push` costs the caller, in nanoseconds and in encodes of the same event.

`python -m benchmarks.push`. Blocks of pushes and blocks of msgspec encodes of the same events take turns, and
either goes first as often as the other. Every call is timed by itself. After each block the event loop runs,
as it does in a service.
"""

import asyncio
import logging
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import msgspec

from benchmarks.alone import alone
from benchmarks.cli import Plan, main
from benchmarks.data import DOCUMENTED, SIZES, make_event
from benchmarks.report import Column, Plot, Report, Table, percentile
from honeyhive_batcher import Batcher, ModelEvent

_BLOCK = 100


class Case(msgspec.Struct, frozen=True):
    """A way to push."""

    name: str
    is_struct: bool = False
    has_session: bool = False
    has_id: bool = False
    in_thread: bool = False
    is_full: bool = False


CASES = (
    Case("dict"),
    Case("Struct", is_struct=True),
    Case("dict, in a session", has_session=True),
    Case("Struct, in a session", is_struct=True, has_session=True),
    Case("dict, id given", has_id=True),
    Case("Struct, id given", is_struct=True, has_id=True),
    Case("dict, from another thread", in_thread=True),
    Case("dict, queue full", is_full=True),
)


class Cost(msgspec.Struct):
    """Nanoseconds of each call."""

    pushes: list[int]
    encodes: list[int]
    accepted: int
    overhead: float
    """Of reading the clock twice and of a call that does nothing."""


def push_cost(case: Case, size: int, calls: int) -> Cost:
    """Push so often; in a process of its own, see `alone`."""
    logging.getLogger("honeyhive_batcher").setLevel(logging.ERROR)  # the full queue is no news here
    return asyncio.run(_push_cost(case, size, calls))


async def _push_cost(case: Case, size: int, calls: int) -> Cost:
    most: Any = {"max_queue_events": 1} if case.is_full else {"max_queue_bytes": 2**30}
    encode = msgspec.json.Encoder().encode
    cost = Cost([], [], 0, statistics.median(_timed(id, [None] * 1_000)))
    async with Batcher(test_mode=True, **most) as batcher:
        with batcher.session(user="somebody") if case.has_session else nullcontext():
            for first in range(-_BLOCK, calls, _BLOCK):  # the first block is a warm-up
                events = [_make(case, max(0, first) + number, size) for number in range(_BLOCK)]
                is_even = first % (2 * _BLOCK) == 0  # who comes second finds the events in the caches
                encodes = _timed(encode, events) if is_even else []
                if case.in_thread:
                    pushes = await asyncio.to_thread(_timed, batcher.push, events)
                else:
                    pushes = _timed(batcher.push, events)
                encodes = encodes or _timed(encode, events)
                if first >= 0:
                    cost.encodes += encodes
                    cost.pushes += pushes
                if not case.is_full:
                    await batcher.flush()
        cost.accepted = batcher.statistics().accepted
    return cost


def _make(case: Case, number: int, size: int) -> Any:
    event = make_event(number, size)
    if case.has_id:
        event["event_id"] = f"01234567-89ab-4cde-8f01-{number:012}"
    return ModelEvent(**event) if case.is_struct else event


def _timed(call: Callable[[Any], object], events: list[Any]) -> list[int]:
    clock = time.perf_counter_ns
    taken = []
    for event in events:
        began = clock()
        call(event)
        taken.append(clock() - began)
    return taken


def measure(plan: Plan) -> Report:
    """Return the table of all cases and sizes."""
    columns = [Column("event"), Column("pushed"), Column("encode, ns", ",.0f")]
    for which in ("median", "p99", "p99.9"):
        columns += [Column(f"{which}, ns", ",.0f"), Column(f"{which}, encodes")]
    table = Table("One push", [*columns, Column("calls", ","), Column("accepted", ",")])
    table.plot = Plot(["median, encodes", "p99, encodes"], labels=2, is_logarithmic=True)
    report = Report("push", [table])
    for label, size in SIZES.items():
        calls = plan.size(20_000, 500) if size < 50_000 else plan.size(3_000, 200)
        for case in CASES:
            runs = [alone(push_cost, case, size, calls) for _ in range(plan.turns(3))]
            cells = _medians(runs)
            table.rows.append(
                [label, case.name, *cells, calls, runs[-1].accepted - _BLOCK * (not case.is_full)]
            )
            if case == CASES[0] and size == DOCUMENTED:
                report.figures = {"median": float(cells[2]), "p99": float(cells[4])}
                table.notes.append(_what_the_dear_ones_are(runs))
    return report


def _what_the_dear_ones_are(runs: list[Cost]) -> str:
    """Say what the first and the last push of a block take: they are those beyond the 98th percentile."""
    units = [statistics.median(run.encodes) - run.overhead for run in runs]

    def in_encodes(pick: Callable[[Cost], list[int]]) -> str:
        costs = [statistics.median(pick(run)) - run.overhead for run in runs]
        return f"{statistics.median(cost / unit for cost, unit in zip(costs, units, strict=True)):.2f}"

    return (
        f"1 KB, dict: of {_BLOCK} pushes the first, which comes after the loop has turned, takes "
        f"{in_encodes(lambda run: run.pushes[_BLOCK :: 2 * _BLOCK])} encodes, and an encode that comes first "
        f"{in_encodes(lambda run: run.encodes[:: 2 * _BLOCK])}; the one that fills a batch takes "
        f"{in_encodes(lambda run: run.pushes[_BLOCK - 1 :: _BLOCK])}"
    )


def _medians(runs: list[Cost]) -> list[float]:
    rows = []
    for run in runs:
        unit = statistics.median(run.encodes) - run.overhead
        pushes = [taken - run.overhead for taken in sorted(run.pushes)]
        row = [unit]
        for share in (0.5, 0.99, 0.999):
            row += [percentile(pushes, share), percentile(pushes, share) / unit]
        rows.append(row)
    return [statistics.median(column) for column in zip(*rows, strict=True)]


if __name__ == "__main__":
    sys.exit(main(["push"]))
