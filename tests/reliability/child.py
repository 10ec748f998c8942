"""Measures in a process of its own, whose memory, threads and standard error are nobody else's."""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.reliability.peer import ROOT

MiB = 1024 * 1024


class Report(Struct, frozen=True, kw_only=True):
    """What such a process had to say."""

    value: dict[str, Any]
    stderr: str


def in_a_process(function: Callable[..., dict[str, Any]], **arguments: Any) -> Report:
    """Call a function of a module in a new process, and return what it returns, through JSON.

    Every warning is an error there, and asyncio and `ResourceWarning` speak up on its standard error.
    """
    program = (
        f"import json, sys; from {function.__module__} import {function.__name__} as function; "
        "value = function(**json.loads(sys.argv[1])); print(json.dumps(value))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, json.dumps(arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{function.__name__} ended with {done.returncode}: {done.stderr}")
    return Report(value=json.loads(done.stdout.splitlines()[-1]), stderr=done.stderr)


def resident() -> int:
    """Return the bytes of this process that are in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Malloc(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = [  # type: ignore[mutable-override]  # so ctypes wants it
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def in_use() -> dict[str, int]:
    """Return what of this process's memory is in use, and not kept for reuse: bytes that the C library has
    given out (glibc 2.33), and how many of CPython's own small blocks.
    """
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Malloc
    malloc = mallinfo()
    return {"malloc": malloc.uordblks + malloc.hblkhd, "blocks": sys.getallocatedblocks()}


def resident_trimmed() -> int:
    """Return the same as `resident`, after the C library has given back what it kept for reuse (glibc)."""
    ctypes.CDLL(None).malloc_trim(0)
    return resident()


def descriptors() -> int:
    """Return how many files and sockets this process has open (Linux)."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            entry.readlink()
            count += 1
    return count
