"""Calls that a program has left and not ended: they are told at the latest when their batcher closes, or the
program ends.

A client's stream that is left with `break` ends when Python collects it, which may be long after, and after
the close nobody takes what is told.
"""

import atexit
from typing import Protocol

from honeyhive_batcher.producer import Producer
from honeyhive_batcher.runtime import ending  # noqa: F401 - see `_tell_all`


class Unfinished(Protocol):
    """A call whose end has not been heard."""

    batcher: Producer

    def end(self) -> None:
        """Tell of the call as far as it has come. Never raises."""
        ...


_calls: dict[int, Unfinished] = {}  # by identity; each operation on it is atomic, and needs no lock


def keep(call: Unfinished) -> None:
    """Keep a call until `forget`, which has to come when the call is told, or collected."""
    _calls[id(call)] = call


def forget(call: Unfinished) -> None:
    """Keep a call no longer."""
    _calls.pop(id(call), None)


def tell_unfinished(batcher: Producer) -> None:
    """Have `batcher` told of all calls that are its own and were not told. From any thread."""
    for call in tuple(_calls.values()):
        if call.batcher is batcher:
            call.end()


@atexit.register
def _tell_all() -> None:
    # Before the batchers' own end, because this is registered later.
    for call in tuple(_calls.values()):
        call.end()
