"""Running the command as a program, against a collector in a thread."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from honeyhive_batcher.testing import Collector, collector_in_thread

ROOT = Path(__file__).parents[2]
DEADLINE = 20.0
_NOTHING: Mapping[str, str] = {}


CORPUS = ROOT / "tests" / "data" / "model_events.jsonl"


def aim(hive: Collector, key: str = "hh_key") -> dict[str, str]:
    """Return the variables that point at a collector."""
    return {"HH_API_URL": hive.url, "HH_API_KEY": key}


def event_line(number: int, **more: Any) -> bytes:
    """Return a line with an event that its duration tells from others."""
    return json.dumps({"model_name": "m", "duration": number, **more}).encode() + b"\n"


class Command:
    """Runs `honeyhive-batcher` in a folder; of HoneyHive only what is given is in its environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HH_", "PYTHON"))}
        return {**clean, "PYTHONPATH": str(ROOT), **more}

    def line(self, *arguments: str) -> list[str]:
        # Warnings, forgotten files and sockets among them, are errors in there as well.
        return [sys.executable, "-W", "error", "-m", "honeyhive_batcher", *arguments]

    def run(
        self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] = _NOTHING
    ) -> tuple[int, list[str], list[str]]:
        """Return exit code, lines of standard output, lines of standard error."""
        done = subprocess.run(
            self.line(*arguments),
            cwd=self.folder,
            env=self.environment(env),
            input=stdin,
            capture_output=True,
            check=False,
            timeout=DEADLINE,
        )
        return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode().splitlines()

    @contextmanager
    def started(self, *arguments: str, env: Mapping[str, str] = _NOTHING) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            self.line(*arguments),
            cwd=self.folder,
            env=self.environment(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as program:
            try:
                yield program
            finally:
                program.kill()


def wait_until(condition: Callable[[], Any]) -> None:
    """Return when the collector has come so far; it has no other way to tell a thread."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.005)


def table(lines: list[str]) -> dict[str, int]:
    """Return the numbers of a summary by their names."""
    rows = [line.rpartition("  (")[0] or line for line in lines]
    return {row[:12].strip(): int(row[12:].replace(",", "")) for row in rows if not row.startswith("elapsed")}


@pytest.fixture
def hive() -> Iterator[Collector]:
    with collector_in_thread() as hive:
        yield hive


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture
def hive_with_key() -> Iterator[Collector]:
    with collector_in_thread(api_key="hh_right") as hive:
        yield hive
