"""Where the time of a push goes: what each of its steps costs by itself, in nanoseconds and in encodes.

`python -m benchmarks.anatomy`. All steps take turns, so that a slow moment of the machine is one of all of
them. What the steps of a call do not explain are the calls between them, which are Python's own.
"""

import asyncio
import logging
import statistics
import sys
import threading
import time
from collections.abc import Callable
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
    intake.admit(Fragment(data, APPENDED), SESSIONLESS, 0.0)  # those that follow come behind another

    def bounded(event: dict[str, Any]) -> None:
        buffer = bytearray(_ROOM)
        view = memoryview(buffer)  # keeps it from growing
        encode_into(event, buffer)
        del view

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
        "- admission": lambda _: intake.take(Fragment(data, APPENDED)),
        "-- the lock": locked,
    }


def step_costs(rounds: int) -> dict[str, float]:
    """Return the median nanoseconds of each step, less those of a call; in a process of its own."""
    logging.getLogger("honeyhive_batcher").setLevel(logging.ERROR)
    return asyncio.run(_step_costs(rounds))


async def _step_costs(rounds: int) -> dict[str, float]:
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
    costs = {name: statistics.median(each) for name, each in taken.items()}
    nothing = costs.pop("nothing")
    return {name: cost - nothing for name, cost in costs.items()}


def measure(plan: Plan) -> Report:
    """Return the table of the steps."""
    runs = [alone(step_costs, plan.size(100, 5)) for _ in range(plan.turns(3))]
    table = Table("Where a push goes", [Column("step"), Column("ns", ",.0f"), Column("encodes")])
    for name in runs[0]:
        cost = statistics.median(run[name] for run in runs)
        ratio = statistics.median(run[name] / run["one encode"] for run in runs)
        table.rows.append([name, cost, ratio])
    return Report("anatomy", [table])


if __name__ == "__main__":
    sys.exit(main(["anatomy"]))
