"""Run one measurement in a process of its own.

The imports, threads and garbage of one contestant must not weigh on the next. The process is pinned before
it imports anything else. What it prints goes to the standard error, so that a peer's chatter is no result.
"""

import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

ParametersT = ParamSpec("ParametersT")
ResultT = TypeVar("ResultT")

PRODUCER_CORE, SERVER_CORE = 0, 1
_LONGEST = 600.0


class MeasurementError(Exception):
    """A measurement did not come to its end."""


def pin(core: int) -> None:
    """Stay on one core, where the system allows it and has that many."""
    if hasattr(os, "sched_setaffinity") and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


def alone(
    function: Callable[ParametersT, ResultT], *args: ParametersT.args, **kwargs: ParametersT.kwargs
) -> ResultT:
    """Return what the function returns in a new interpreter on the producer's core.

    Raises:
        MeasurementError: It raised, or took too long.
    """
    command = [sys.executable, "-c", "from benchmarks.alone import serve; serve()"]
    try:
        done = subprocess.run(
            command,
            check=False,
            input=pickle.dumps((function, args, kwargs)),
            capture_output=True,
            timeout=_LONGEST,
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"{function.__name__} took longer than {_LONGEST} s") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise MeasurementError(lines[-1].partition(";")[0] if lines else f"exit code {done.returncode}")
    result: ResultT = pickle.loads(done.stdout)
    return result


def serve() -> None:
    """Do what the standard input says; the result goes to the standard output, and nothing else does."""
    pin(PRODUCER_CORE)
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        function, args, kwargs = pickle.load(sys.stdin.buffer)
        result = pickle.dumps(function(*args, **kwargs))
        with answer:
            answer.write(result)
        code = 0
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)  # what a peer's threads still have to say at exit is no part of it
