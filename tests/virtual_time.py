"""An event loop whose clock jumps to the next timer when nothing is ready: hours pass in no time, exactly."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_BUSY = 20_000
"""Turns at one instant after which something is taken to spin. The longest test needs a tenth of it."""

ResultT = TypeVar("ResultT")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs like asyncio's own loop, in a time of its own that begins at 0.

    Only callbacks of the loop itself may be waited for: no sockets, no threads.

    Raises:
        RuntimeError: from whatever runs the loop, when nothing could ever happen again (a deadlock) or
            when time has stopped because something keeps the loop busy.
    """

    _clock_resolution: float
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._turns_now = 0
        self.turns = 0
        """How many times the loop looked for something to do."""
        self.before_turn: Callable[[], None] = lambda: None
        """Called at the beginning of every turn."""

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        self.turns += 1
        self._turns_now += 1
        self.before_turn()
        if self._turns_now > _BUSY:
            raise RuntimeError(f"something spins: {_BUSY} turns at the instant {self._now}: {self._ready}")
        if not self._ready and not self._stopping:
            self._jump()
        # asyncio lets timers go a nanosecond early, which is right where time passes by itself. Here tasks
        # that rouse each other before an instant would do so for ever.
        self._clock_resolution = math.ulp(self._now)
        super()._run_once()  # type: ignore[misc]  # private, and so unknown to the type checker

    def _jump(self) -> None:
        instants = [timer.when() for timer in self._scheduled if not timer.cancelled()]
        if not instants:
            raise RuntimeError(f"a deadlock at the instant {self._now}: nothing will ever happen")
        if min(instants) > self._now:
            self._now = min(instants)
            self._turns_now = 0


def virtual_loop() -> VirtualTimeLoop:
    """Return the running loop, which is one of these."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


def now() -> float:
    """Return the present instant of the running loop."""
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], object]) -> None:
    """Let one turn of the loop after another pass, and no time, until `condition` holds."""
    while not condition():  # noqa: ASYNC110 - it is the very turn that matters
        await asyncio.sleep(0)


def run_virtually(main: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
    """Run `main` in a new virtual-time loop, as `asyncio.run` would."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())
