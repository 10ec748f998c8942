"""Conservation under seeded chaos: programs made by chance against a server that does anything by chance.

The batcher is the real one, with its worker and engine, in virtual time; `program` makes the programs,
`enemy` is the server, `checker` the judge.

    python -m tests.reliability.chaos [first seed] [how many] [--processes N] [--steps N] [--hashes]
"""

import argparse
import hashlib
import itertools
import logging
import multiprocessing
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from msgspec import Struct

from tests.reliability.checker import Record, violations
from tests.reliability.program import Program
from tests.reliability.rows import Row, Size
from tests.virtual_time import run_virtually

QUICK_SEEDS = 300
FULL_SEEDS = 20_000
_CHUNK = 25
_PROCESSES = 2


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of one seed."""

    seed: int
    violations: list[str]
    trace: str
    """A hash of every request, reply and fate."""
    offered: int
    requests: int
    healing: float
    """Virtual seconds from the healing of the server until nothing was held."""
    bound: float

    @property
    def share(self) -> float:
        """How much of its bound it took to heal; nothing if it was never started."""
        return self.healing / self.bound if self.bound else 0.0


def trace_hash(record: Record) -> str:
    """Return a hash of every request with its reply, in order, and every fate with its instant."""
    trace = hashlib.sha256()
    for come in record.arrivals:
        line = (come.at, come.run, come.method, come.ids, come.reply, come.retry_after, come.ended_at)
        trace.update(repr(line).encode())
        trace.update(come.body)
    for fated in record.fates:
        trace.update(repr((fated.at, fated.event_id, fated.fate)).encode())
    return trace.hexdigest()


def run_seed(seed: int, steps: int | None = None) -> Outcome:
    """Run one seed."""
    program = play(seed, steps)
    record = program.record
    return Outcome(
        seed=seed,
        violations=[*program.complaints, *violations(record)],
        trace=trace_hash(record),
        offered=len(record.offers),
        requests=len(record.arrivals),
        healing=program.healing,
        bound=program.bound,
    )


def play(seed: int, steps: int | None = None) -> Program:
    """Run one seed, and return all there is to see of it."""
    program = Program(seed, steps)
    logger = logging.getLogger("honeyhive_batcher")
    was_disabled, logger.disabled = logger.disabled, True  # it would tell of every loss
    try:
        run_virtually(program.main)
    except Exception as error:  # a deadlock, a loop that spins, or what the package threw at its host
        program.complaints.append(f"the program ended with {error!r}")
    finally:
        logger.disabled = was_disabled
    return program


# Many seeds.


def run_seeds(first: int, count: int) -> list[Outcome]:
    """Run so many seeds."""
    return [run_seed(seed) for seed in range(first, first + count)]


def run_many(first: int, count: int, processes: int) -> Iterator[Outcome]:
    """Run so many seeds in so many processes, in order."""
    if processes == 1:
        yield from (run_seed(seed) for seed in range(first, first + count))
        return
    starts = range(first, first + count, _CHUNK)
    sizes = [min(_CHUNK, first + count - start) for start in starts]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for outcomes in pool.map(run_seeds, starts, sizes):
            yield from outcomes


def hashes_elsewhere(first: int, count: int) -> list[str]:
    """Return the trace hashes that another process with another hash seed comes to."""
    command = [sys.executable, "-m", "tests.reliability.chaos", str(first), str(count), "--hashes"]
    root = pathlib.Path(__file__).parents[2]
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environ = {**os.environ, "PYTHONHASHSEED": other, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environ, check=True, capture_output=True, text=True)
    return done.stdout.split()


def rows(size: Size) -> Iterator[Row]:
    """Violations, traces that differ, and how long healing took."""
    is_full = size is Size.FULL
    count, again = (FULL_SEEDS, 500) if is_full else (QUICK_SEEDS, 20)
    outcomes = list(run_many(0, count, _PROCESSES if is_full else 1))
    for outcome in outcomes:
        if outcome.violations:
            print(_told_about(outcome), file=sys.stderr)
    wrong = sum(len(outcome.violations) for outcome in outcomes)
    offered = sum(outcome.offered for outcome in outcomes)
    requests = sum(outcome.requests for outcome in outcomes)
    yield Row(
        bar=1,
        what=f"seeded chaos: violations over {count:,} seeds ({offered:,} events, {requests:,} requests)",
        figure=str(wrong),
        bound="0",
        holds=wrong == 0 and len(outcomes) == count,
    )
    traces = [outcome.trace for outcome in outcomes[:again]]
    others = hashes_elsewhere(0, again) if is_full else [run_seed(seed).trace for seed in range(again)]
    differ = sum(one != other for one, other in itertools.zip_longest(traces, others))
    yield Row(
        bar=1,
        what=f"seeded chaos: traces that differ when {again} seeds are run again"
        + (" in another process" if is_full else ""),
        figure=str(differ),
        bound="0",
        holds=differ == 0,
    )
    slowest = max(outcomes, key=lambda outcome: outcome.healing)
    tightest = max(outcomes, key=lambda outcome: outcome.share)
    yield Row(
        bar=1,
        what="seeded chaos: longest from healing to nothing held, and its bound (virtual time)",
        figure=f"{slowest.healing:.0f} s",
        bound=f"{slowest.bound:.0f} s (the tightest took {tightest.share:.0%} of its own)",
        holds=all(outcome.share <= 1.0 for outcome in outcomes),
    )


def _told_about(outcome: Outcome) -> str:
    program = Program(outcome.seed)
    lines = [f"seed {outcome.seed}: python -m tests.reliability.chaos {outcome.seed} 1"]
    lines += [f"  {program.settings}", f"  {program.climate}"]
    return "\n".join([*lines, *(f"  - {violation}" for violation in outcome.violations)])


def main() -> int:
    """Run seeds and print what is wrong with them."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.chaos", description=__doc__)
    parser.add_argument("first", nargs="?", type=int, default=0, help="the first seed")
    parser.add_argument("count", nargs="?", type=int, default=QUICK_SEEDS, help="how many seeds")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, help="the same programs, cut short")
    parser.add_argument("--hashes", action="store_true", help="print nothing but the traces' hashes")
    options = parser.parse_args()
    began, ran, wrong = time.monotonic(), 0, 0
    outcomes: Iterable[Outcome]
    if options.steps is not None:
        outcomes = (run_seed(options.first + i, options.steps) for i in range(options.count))
    else:
        outcomes = run_many(options.first, options.count, options.processes)
    for outcome in outcomes:
        ran += 1
        if options.hashes:
            print(outcome.trace)
        elif outcome.violations:
            wrong += 1
            print(_told_about(outcome), flush=True)
    if not options.hashes:
        print(f"{ran} seeds, {wrong} of them with violations, {time.monotonic() - began:.1f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
