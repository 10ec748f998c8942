"""Programs that a test runs in an interpreter of their own, beside a local HoneyHive."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment(url: str = "http://127.0.0.1:1") -> dict[str, str]:
    """Return what a program needs to find this package and the server at `url`, and nothing of the machine's
    own settings. Its lines are not counted: that would take longer than all of the program.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HH_", "COVERAGE_")) and not name.lower().endswith("_proxy")
    }
    return kept | {"HH_API_URL": url, "HH_API_KEY": "hh_test", "PYTHONPATH": str(ROOT)}


def start_program(source: str, url: str = "http://127.0.0.1:1") -> subprocess.Popen[str]:
    """Start a program; who starts it ends it."""
    return subprocess.Popen(
        [sys.executable, "-c", source],
        env=environment(url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_program(source: str, url: str = "http://127.0.0.1:1") -> subprocess.CompletedProcess[str]:
    """Run a program to its end.

    Raises:
        TimeoutExpired: It hangs.
    """
    return subprocess.run(
        [sys.executable, "-c", source],
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
