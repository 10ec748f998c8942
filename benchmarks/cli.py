"""The command line of the suite and of each of its parts."""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.alone import MeasurementError
from benchmarks.bounds import check
from benchmarks.peers.contestant import HAND_WRITTEN, VENDORS, installed, is_installed, is_there
from benchmarks.plots import draw
from benchmarks.report import Report

PARTS = ("push", "anatomy", "limit", "throughput", "server50", "loss", "lag", "size", "scale", "footprint")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much to do, and with whom."""

    quick: bool = False
    peers: tuple[str, ...] = ()
    rounds: int | None = None

    def size(self, full: int, quick: int) -> int:
        """Return one of two sizes."""
        return quick if self.quick else full

    def turns(self, full: int) -> int:
        """Return the number of rounds."""
        return self.rounds or (1 if self.quick else full)


def main(parts: Sequence[str] = PARTS) -> int:
    """Run some parts, print what they found, and say whether every bound of theirs holds."""
    parser = argparse.ArgumentParser(description="What the batcher costs, beside others.")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run: shows that it works, not what it costs"
    )
    parser.add_argument("--rounds", type=int, help="turns that each contestant takes")
    parser.add_argument("--peers", help="names, or all, or none; all is the default, and none of --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as JSON")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the tables there (needs matplotlib)")
    options = parser.parse_args()
    wanted = _wanted(options.peers or ("none" if options.quick else "all"), parser)
    if options.plots and not is_there("matplotlib"):
        parser.error("--plots needs matplotlib, which is not installed")
    missing = [name for name in (*HAND_WRITTEN, *wanted) if not is_installed(name)]
    if missing:
        print(f"Not installed, and skipped: {', '.join(missing)}.\n")
    plan = Plan(quick=options.quick, peers=tuple(installed(wanted)), rounds=options.rounds)
    reports = [_run(part, plan) for part in parts]
    table, failed = check(reports)
    if plan.quick:
        table.notes.append("a quick run shows that the suite works; only its counts mean anything")
        failed = [bound for bound in failed if bound.is_count]
    if table.rows:
        print("## bounds\n\n" + "\n".join(table.lines()))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(reports)))
    if options.plots:
        draw(reports, options.plots)
    return bool(failed) or any(report.has_failed for report in reports)


def _wanted(text: str, parser: argparse.ArgumentParser) -> list[str]:
    names = {"all": list(VENDORS), "none": []}.get(text, text.split(","))
    for name in names:
        if name not in VENDORS:
            parser.error(f"no such peer: {name} (of {', '.join(VENDORS)})")
    return names


def _run(part: str, plan: Plan) -> Report:
    began = time.monotonic()
    print(f"## {part}\n", flush=True)
    try:
        report: Report = importlib.import_module(f"benchmarks.{part}").measure(plan)
    except MeasurementError as error:  # the other parts may still tell something
        print(f"{part} came to no end: {error}\n")
        return Report(part, has_failed=True)
    for table in report.tables:
        print("\n".join(table.lines()))
    print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return report
