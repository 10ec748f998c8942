"""Runs the programs of `tests/reliability/programs`, each in its own process, against a local HoneyHive."""

import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from honeyhive_batcher.testing import Collector

PROGRAMS = Path(__file__).parent / "reliability" / "programs"
_ROOT = Path(__file__).parent.parent


class Done(Struct, frozen=True, kw_only=True):
    """How a program ended."""

    status: int
    output: list[str]
    """The lines it printed."""
    noise: list[str]
    """The lines on its stderr: what Python, its libraries and the log said unasked."""


def environment(hive: Collector, **variables: str) -> dict[str, str]:
    """Return the environment of a program that logs to `hive`."""
    foreign = re.compile(r"HH_|\w+_proxy$", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not foreign.match(name)}
    path = os.pathsep.join([str(PROGRAMS), str(_ROOT)])
    settings = hive.settings()
    return {
        **kept,
        "PYTHONPATH": path,
        "HH_API_URL": settings["base_url"],
        "HH_API_KEY": settings["api_key"],
        **variables,
    }


def run_program(
    name: str, hive: Collector, *arguments: object, warnings: str = "default", timeout: float = 60.0
) -> Done:
    """Run a program to its end, with all warnings shown unless `warnings` says otherwise.

    Raises:
        subprocess.TimeoutExpired: It did not end in time: something in it hangs.
    """
    done = subprocess.run(
        [sys.executable, "-W", warnings, PROGRAMS / f"{name}.py", *map(str, arguments)],
        env=environment(hive),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Done(status=done.returncode, output=done.stdout.splitlines(), noise=done.stderr.splitlines())


def arrived(hive: Collector) -> Counter[str]:
    """Return how often each event arrived, by its `model_name`."""
    return Counter(str(stored.event["model_name"]) for stored in hive.events())


def compare(got: Counter[str], due: Iterable[str]) -> tuple[int, int]:
    """Return how many of the events that are due did not arrive, and how many came more than once or were
    not due at all.
    """
    wanted = set(due)
    lost = sum(name not in got for name in wanted)
    surplus = sum(times - (name in wanted) for name, times in got.items())
    return lost, surplus


def due(done: Done) -> list[str]:
    """Return the events that a program says have to arrive: its lines `due NAME`."""
    return [line.removeprefix("due ") for line in done.output if line.startswith("due ")]


def wrongs(done: Done) -> list[str]:
    """Return what a program says went wrong: its lines `wrong ...`."""
    return [line for line in done.output if line.startswith("wrong")]


def unused_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
