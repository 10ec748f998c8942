"""Print the table of reliability figures: `python -m benchmarks.reliability [--quick] [scenario ...]`.

Each row is a figure, its bound, and whether it holds; the exit code tells whether all do. The scenarios
are those of `tests/reliability`, in full size unless `--quick` is given.
"""

import argparse
import importlib
import logging
import pkgutil
import sys
import time
from collections.abc import Iterator

import tests.reliability
from tests.reliability.rows import Row, Scenario, Size

BARS = {
    1: "Seeded chaos: every event has one fate, and it is the truth",
    7: "A day without the server",
    8: "Memory",
    9: "Every point at which a request may fail",
    10: "Partial success",
    11: "Poison and oversize",
    12: "Every status with every Retry-After",
    13: "An outage of many clients, and how many requests a server takes at once",
    14: "Slow servers, and answers without an end",
    15: "Closing, cancellation, Ctrl-C",
    16: "Forks, loops, servers, the end of the interpreter",
    17: "What the host feels",
    18: "Secrets, redirects, log lines",
    19: "A hostile network over real sockets",
}


def scenarios() -> dict[str, Scenario]:
    """Return the scenarios by the names of their modules."""
    found: dict[str, Scenario] = {}
    for module in pkgutil.iter_modules(tests.reliability.__path__):
        if not module.name.startswith("test_"):
            rows = getattr(importlib.import_module(f"tests.reliability.{module.name}"), "rows", None)
            if rows is not None:
                found[module.name] = rows
    return found


def table(rows: list[Row]) -> Iterator[str]:
    """Return the lines of a Markdown table, with a heading for each bar."""
    yield "| what | figure | bound | |"
    yield "| --- | --- | --- | --- |"
    for bar in sorted({row.bar for row in rows}):
        yield f"| **{bar}. {BARS[bar]}** | | | |"
        for row in rows:
            if row.bar == bar:
                yield f"| {row.what} | {row.figure} | {row.bound} | {'pass' if row.holds else 'FAIL'} |"


def main() -> int:
    found = scenarios()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="as the gate does: minutes for all")
    parser.add_argument("names", nargs="*", metavar="scenario", help=f"of {', '.join(found)}; all if none")
    options = parser.parse_args()
    unknown = set(options.names) - set(found)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    size = Size.QUICK if options.quick else Size.FULL
    logging.lastResort = None  # what the batcher says about all this trouble is not for the reader
    rows: list[Row] = []
    for name in options.names or found:
        began = time.monotonic()
        rows += found[name](size)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    print("\n".join(table(rows)))
    return 0 if rows and all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
