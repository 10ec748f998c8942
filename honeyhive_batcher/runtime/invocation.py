"""One call of a function that its platform freezes between calls: AWS Lambda and its like."""

import asyncio
import contextlib
import math
from types import TracebackType
from typing import final

import anyio

from honeyhive_batcher.errors import BatcherError
from honeyhive_batcher.runtime.lifecycle import Lifecycle
from honeyhive_batcher.runtime.sends import quiet_task
from honeyhive_batcher.runtime.waiting import undisturbed


@final
class Invocation:
    """Has the batcher run inside, and sends what is held before it ends; the rest waits for the next one.

    Of several at once the last one to end lets the batcher rest, unless somebody else has started it.
    """

    def __init__(self, lifecycle: Lifecycle, timeout: float) -> None:
        self._lifecycle = lifecycle
        self._timeout = 0.0 if math.isnan(timeout) else timeout

    async def __aenter__(self) -> None:
        self._lifecycle.invocations += 1
        try:
            # In another loop it runs already, and goes on.
            with contextlib.suppress(BatcherError):
                await self._lifecycle.start(is_owed_a_close=False)
        except BaseException:
            self._lifecycle.invocations -= 1
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # As when closing: bounded, and not cut short by whoever cancels the function.
        with anyio.CancelScope(shield=True):
            ending = quiet_task(asyncio.get_running_loop(), self._end(), "invocation")
            was_cancelled = await undisturbed(ending)
        if was_cancelled:
            raise asyncio.CancelledError

    async def _end(self) -> None:
        try:
            await self._lifecycle.callers.flush(self._timeout)
        finally:
            self._lifecycle.invocations -= 1
            if not self._lifecycle.invocations:
                await self._lifecycle.rest()
