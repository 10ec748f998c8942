"""Wherever Python code may run: forked children, pools, threads, signal handlers, loops that die, the end of
the program. Each program runs in a process of its own and writes down what is due.
"""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeAlias

from honeyhive_batcher.testing import Collector, collector_in_thread
from tests.child_process import PROGRAMS, Done, arrived, compare, due, environment, run_program, wrongs
from tests.reliability.rows import Row, Size

UNSEEN_FORK = "forked, and Python was not told"
_NEVER = "a Batcher was never started: 3 events are lost"
_DROPPED = "closed: of the 3 events still held 0 were delivered, 3 dropped, 0 unconfirmed"
_UNCONFIRMED = "closed: of the 1 events still held 0 were delivered, 0 dropped, 1 unconfirmed"
LOSS = {
    "never_started": _NEVER,
    "forgotten_before_the_start": _NEVER,
    "closed_loop": _DROPPED,
    "closed_loop_and_forgotten": _DROPPED,
    "closed_loop_with_a_request_under_way": _UNCONFIRMED,
    "loop_that_stands_still": _DROPPED,
    "loop_that_stands_still_and_forgotten": _DROPPED,
    "pushed_at_exit": "an event was pushed after the batcher was closed: refused and counted",
}
"""The one line, or its beginning, that each ending is worth; an ending that loses nothing says nothing."""


def _row(what: str, done: Done, got: Counter[str], wanted: list[str], *, said: int = 0) -> Row:
    lost, surplus = compare(got, wanted)
    wrong = [*wrongs(done), *([f"exit status {done.status}"] if done.status else []), *done.noise[said:]]
    return Row(
        bar=16,
        what=what,
        figure=f"{len(wanted)} due, {lost} lost, {surplus} doubled or not due, {len(wrong)} complaints"
        + (f": {wrong[0]}" if wrong else ""),
        bound="0 lost, 0 doubled, 0 complaints",
        holds=bool(wanted) and not lost and not surplus and not wrong,
    )


def forks(hive: Collector, size: Size) -> Iterator[Row]:
    """Every event of parent and children arrives once; no child hangs, none says anything."""
    number = 6 if size is Size.QUICK else 300
    done = run_program("forks", hive, number, timeout=60 if size is Size.QUICK else 600)
    wanted = []
    for name in due(done):
        thread = re.fullmatch(r"(\d+) of (thread \d)", name)
        wanted += [f"{thread[2]} {at}" for at in range(int(thread[1]))] if thread else [name]
    children = sum(name.endswith("closing") for name in wanted)
    is_told = [UNSEEN_FORK in line for line in done.noise] == [True]
    what = f"{children} forks: before, after, nested, with the lock held, unseen, while 8 threads push"
    yield _row(what, done, arrived(hive), wanted, said=is_told)


def pools(hive: Collector, _: Size) -> Iterator[Row]:
    """Workers of `multiprocessing.Pool` log on their own, and leave the parent's batcher alone."""
    done = run_program("pools", hive)
    yield _row(
        "multiprocessing pools, fork and spawn, beside a batcher that runs", done, arrived(hive), due(done)
    )


def places(hive: Collector, size: Size) -> Iterator[Row]:
    """Threads, finalizers, signal handlers and dead loops lose nothing."""
    done = run_program(
        "places", hive, 20 if size is Size.QUICK else 2000, warnings="ignore::ResourceWarning", timeout=300
    )
    what = "pushes from 8 threads, `__del__` and signal handlers, loop after loop, some of which die"
    yield _row(what, done, arrived(hive), due(done))


def endings(hive: Collector, _: Size) -> Iterator[Row]:
    """A program that ends with events held says so in one line, or delivers them."""
    done = run_program("endings", hive, warnings="ignore::ResourceWarning")
    lost, surplus = compare(arrived(hive), due(done))
    said = [line.split(": ", 1) for line in done.output if not line.startswith("due ")]
    as_meant = sum(len(parts) == 2 and parts[1].startswith(LOSS.get(parts[0], "?")) for parts in said)
    yield Row(
        bar=16,
        what="programs that end with events held, in 10 ways",
        figure=f"{as_meant} lines as meant, {len(said) - as_meant + len(done.noise)} others, {lost} lost in "
        f"vain, {surplus} not due",
        bound=f"{len(LOSS)} lines, 0 others, 0 lost, 0 not due",
        holds=(as_meant, len(said), done.noise, lost, surplus) == (len(LOSS), len(LOSS), [], 0, 0),
    )


def suite(hive: Collector, _: Size) -> Iterator[Row]:
    """A suite with a loop per test, and clients without lifespan, passes with every warning an error."""
    # The client of one version of Starlette warns about the library that the one before it needs.
    warnings = ("-W", "error", "-W", "ignore:Using `httpx`")
    program = str(PROGRAMS / "suite.py")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            *warnings,
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            program,
        ],
        env=environment(hive),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    got = arrived(hive)
    wanted = ["held", "lifespan", "loop 0", "loop 1", "loop 2", "forgotten", "after"]
    lost, surplus = compare(got, wanted)
    summary = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
    yield Row(
        bar=16,
        what="a test suite with a loop per test, one batcher, `TestClient` with and without lifespan",
        figure=f"{re.sub(r' in .*', '', summary)}, {lost} lost, {surplus} doubled or not due",
        bound="8 passed, 0 lost, 0 doubled",
        holds=done.returncode == 0 and "8 passed" in summary and not lost and not surplus,
    )


Part: TypeAlias = Callable[[Collector, Size], Iterator[Row]]
PARTS: tuple[Part, ...] = (forks, pools, places, endings, suite)


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of all of them, each against a local HoneyHive of its own."""
    for part in PARTS:
        with collector_in_thread() as hive:
            yield from part(hive, size)
