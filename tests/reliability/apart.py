"""Servers in a process of their own: what the batcher's process costs is then its own, and it is not held
up by them.

The process is a module run with `python -m`. It says one line of JSON when it is ready and one in answer to
every line it hears, and ends with its standard input.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parents[2]


class Apart:
    """The other process, as seen from here."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._stdout = process.stdout
        self.greeting = self._hear()
        """What it said when it was ready."""

    async def ask(self, word: str) -> Any:
        """Say something and return the answer."""
        self._stdin.write(f"{word}\n".encode())
        self._stdin.flush()
        return await asyncio.to_thread(self._hear)

    def _hear(self) -> Any:
        line = self._stdout.readline()
        if not line:
            raise RuntimeError("the other process has ended; see its standard error")
        return msgspec.json.decode(line)


@contextlib.contextmanager
def apart(module: str, *arguments: str) -> Iterator[Apart]:
    """Run a module as another process, until the end of the block."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Apart(process)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)
        finally:
            process.kill()


async def converse(greeting: object, answer: Callable[[str], Awaitable[object]]) -> None:
    """Be that other process: greet, and answer every line until there are no more."""
    _say(greeting)
    while line := await asyncio.to_thread(sys.stdin.readline):
        _say(await answer(line.strip()))


def _say(what: object) -> None:
    print(msgspec.json.encode(what).decode(), flush=True)
