"""The end of the program: what can still be delivered is, and of what is lost the log says how much."""

import atexit
import os
import time
import weakref
from typing import Protocol


class Ending(Protocol):
    """Something that may hold events when the program ends."""

    def hasten(self) -> float:
        """Begin to end whatever runs in the loop of another thread; return for how many seconds at most it
        is worth waiting for that.
        """

    @property
    def is_closing(self) -> bool:
        """Whether what `hasten` began goes on."""

    def give_up(self) -> None:
        """Settle what is held, because nobody will send it any more, and say so."""


# With the process that each belongs to: a forked child says nothing about its parent's.
_living: weakref.WeakKeyDictionary[Ending, int] = weakref.WeakKeyDictionary()


def at_end(ending: Ending) -> None:
    """Have this given its chance at the end of the program, if it lives until then."""
    _living[ending] = os.getpid()


@atexit.register
def _end() -> None:
    process = os.getpid()
    mine = [ending for ending, owner in list(_living.items()) if owner == process]
    deadline = time.monotonic() + max((ending.hasten() for ending in mine), default=0.0)
    while any(ending.is_closing for ending in mine) and time.monotonic() < deadline:
        time.sleep(0.01)  # nothing else runs in this thread any more
    for ending in mine:
        ending.give_up()
