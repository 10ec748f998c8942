"""An event loop that notes when it sleeps: how long its turns take, and whether a timer is armed."""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class Sleeps(selectors.DefaultSelector):
    """A selector that notes every sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.clear()

    def clear(self) -> None:
        self.wake_ups = 0
        self.has_timer = False
        self.longest_turn = 0.0
        self._woke_at = time.perf_counter()

    def select(self, timeout: float | None = None) -> Any:
        """Sleep as asked; what comes between two sleeps is a turn of the loop."""
        self.longest_turn = max(self.longest_turn, time.perf_counter() - self._woke_at)
        self.has_timer |= timeout is not None and timeout > 0
        found = super().select(timeout)
        self.wake_ups += timeout != 0  # else it only looked
        self._woke_at = time.perf_counter()
        return found


def run(main: Callable[[Sleeps], Coroutine[Any, Any, ResultT]]) -> ResultT:
    """Run a program in a loop with such a selector."""
    sleeps = Sleeps()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(sleeps)) as runner:
        return runner.run(main(sleeps))
