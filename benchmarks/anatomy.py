"""Where the time of a push goes: what each of its steps costs by itself, in time and in bytecodes.

`python -m benchmarks.anatomy`. All steps take turns, so that a slow moment of the machine is one of all of
them. What the steps of a call do not explain are Python's own bytecodes between them; how many there are does
not depend on the machine, only on the version of CPython.
"""

import asyncio
import logging
import statistics
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgspec

from benchmarks.alone import alone
from benchmarks.cli import Plan, main
from benchmarks.data import make_event
from benchmarks.floor import Floor
from benchmarks.report import Column, Report, Table
from honeyhive_batcher import Batcher
from honeyhive_batcher.config import BatchLimits, QueueLimits
from honeyhive_batcher.core.encoding import EventEncoder
from honeyhive_batcher.core.fragment import APPENDED, SESSIONLESS, Fragment
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.repair import repair
from honeyhive_batcher.core.to_json import likely_nulls_in
from honeyhive_batcher.runtime.ids import ids

_BLOCK = 200
_ROOM = 4096
_AMPLE = 2**40

Step = Callable[[dict[str, Any]], object]


def _steps(batcher: Batcher) -> dict[str, Step]:
    """Return the steps, those that are part of another one below it and indented."""
    encode = msgspec.json.Encoder().encode
    encode_into = msgspec.json.Encoder().encode_into
    nulls = likely_nulls_in
    lock = threading.RLock()
    written = bytearray(encode(make_event(0)))
    encoder = EventEncoder(max_event_bytes=_AMPLE, defaults={}, ids=ids, repair=repair)
    queue = QueueLimits(max_queue_events=_AMPLE, max_queue_bytes=_AMPLE)
    intake = Intake(queue, BatchLimits())
    data = bytes(written)

    def bounded(event: dict[str, Any]) -> None:
        buffer = bytearray(_ROOM)
        view = memoryview(buffer)  # keeps it from growing
        encode_into(event, buffer)
        del view

    def admitted(_: dict[str, Any]) -> None:
        fragment = Fragment(data, APPENDED)
        if not intake.take(fragment):
            intake.admit(fragment, SESSIONLESS, 0.0)

    def locked(_: dict[str, Any]) -> None:
        with lock:
            pass

    return {
        "one encode": encode,
        "push": batcher.push,
        "the same in one function, the least that it can be": Floor(max_events=_AMPLE, max_bytes=_AMPLE).push,
        "- encoder": encoder.encode,
        "-- encode into a buffer that cannot grow": bounded,
        "-- look for nulls that were numbers": lambda _: nulls(written),
        "-- an id": lambda _: ids.next(),
        "-- join event and id": lambda _: b"".join((written, b'"event_id":"', b"0" * 36, b'"}')),
        "-- a fragment": lambda _: Fragment(data, APPENDED),
        "- admission": admitted,
        "-- the lock": locked,
    }


class Cost(msgspec.Struct, frozen=True):
    """What a step takes."""

    ns: float
    bytecodes: int


def step_costs(rounds: int) -> dict[str, Cost]:
    """Return the median nanoseconds of each step, less those of a call; in a process of its own."""
    logging.getLogger("honeyhive_batcher").setLevel(logging.ERROR)
    return asyncio.run(_step_costs(rounds))


async def _step_costs(rounds: int) -> dict[str, Cost]:
    async with Batcher(test_mode=True, max_queue_bytes=2**30) as batcher:
        steps = {"nothing": lambda _: None, **_steps(batcher)}
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            events = [make_event(number) for number in range(_BLOCK)]
            for name, step in steps.items():
                began = time.perf_counter_ns()
                for event in events:
                    step(event)
                taken[name].append((time.perf_counter_ns() - began) / _BLOCK)
            await batcher.flush()
        await batcher.put(make_event(0))  # what is counted comes behind another
        counts = {name: _bytecodes_of(step, make_event(0)) for name, step in steps.items()}
    nothing = statistics.median(taken["nothing"])
    return {
        name: Cost(statistics.median(taken[name]) - nothing, counts[name])
        for name in steps
        if name != "nothing"
    }


def _bytecodes_of(step: Step, event: dict[str, Any]) -> int:
    """Return how many instructions of Python's interpreter a call takes, apart from what C does."""
    count = 0

    def trace(frame: FrameType, kind: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += kind == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        step(event)
    finally:
        sys.settrace(before)
    return count


def measure(plan: Plan) -> Report:
    """Return the table of the steps."""
    runs = [alone(step_costs, plan.size(100, 5)) for _ in range(plan.turns(3))]
    columns = [Column("step"), Column("ns", ",.0f"), Column("encodes"), Column("bytecodes", ",")]
    table = Table("Where a push goes", columns)
    for name, cost in runs[0].items():
        ns = statistics.median(run[name].ns for run in runs)
        ratio = statistics.median(run[name].ns / run["one encode"].ns for run in runs)
        table.rows.append([name, ns, ratio, cost.bytecodes])
    return Report("anatomy", [table])


if __name__ == "__main__":
    sys.exit(main(["anatomy"]))
