"""What a call has cost, computed in a thread between the cut of a batch and its sending.

In a thread of its own that Python does not wait for at its end: the function is the application's, and may
take its time or never return. Nothing of it runs in the event loop, nor inside of `push`.
"""

import asyncio
import contextlib
import math
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, final

import msgspec

from honeyhive_batcher.core.fragment import Fragment
from honeyhive_batcher.core.ledger import Ledger
from honeyhive_batcher.core.model import Batch
from honeyhive_batcher.core.room import filled, has_room

Cost: TypeAlias = Callable[[dict[str, Any]], float | None]
"""Returns what an event has cost, in US dollars; None if it does not know."""


_FAILED = math.nan
"""In place of a cost: the function raised, or said something else. Compared by identity."""


@final
class _Job:
    """One batch on its way through the thread."""

    def __init__(self, fragments: Sequence[Fragment], done: Callable[[], None]) -> None:
        self.events = [fragment.data for fragment in fragments]
        self.costs: list[float | None] = []  # grows while the thread works
        self.is_given_up = False
        self.has_ended = False
        self.done = done


@final
class Pricing:
    """Fills costs into the events of one run, if there is a function for it. In the event loop.

    Invariant: an event's bytes change once, before they are first sent.
    """

    def __init__(self, cost: Cost | None, ledger: Ledger, *, patience: float) -> None:
        self._cost = cost
        self._ledger = ledger
        self._patience = patience
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._late: _Job | None = None
        self._is_closed = False
        thread = threading.Thread(target=self._work, name="honeyhive_batcher.pricing", daemon=True)
        if cost is not None:
            with contextlib.suppress(RuntimeError):  # no thread to be had: all go without, and are counted
                thread.start()

    async def price(self, batch: Batch) -> None:
        """Fill in the costs of a batch, or leave them out after a while. Raises nothing but a cancellation,
        and then the batch is as it was.
        """
        if self._cost is None:
            return
        fragments = [fragment for fragment in batch.fragments if has_room(fragment)]
        if not fragments:
            return
        costs = await self._worked(fragments)
        costs += [_FAILED] * (len(fragments) - len(costs))
        self._ledger.callback_errors += sum(cost is _FAILED for cost in costs)
        for fragment, cost in zip(fragments, costs, strict=True):
            fragment.data = filled(fragment, None if cost is _FAILED else cost)

    async def _worked(self, fragments: Sequence[Fragment]) -> list[float | None]:
        """Have the thread work, for so long; not at all while it still works on what it was given up for."""
        if self._late is not None and not self._late.has_ended:
            return []
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        job = _Job(fragments, lambda: _release_in(loop, done))
        self._jobs.put(job)
        try:
            async with asyncio.timeout(self._patience):
                await done
        except TimeoutError:
            self._late = job
        finally:
            job.is_given_up = True
        return list(job.costs)

    def close(self) -> None:
        """Let the thread end. Nobody waits for it."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)

    # In the thread.

    def _work(self) -> None:
        with contextlib.suppress(Exception):  # then the first event takes longer, or fails itself
            warm = getattr(self._cost, "warm", None)
            if warm is not None:
                warm()
        while (job := self._jobs.get()) is not None:
            for data in job.events:
                if job.is_given_up:
                    break
                job.costs.append(self._cost_of(data))
            job.has_ended = True
            job.done()

    def _cost_of(self, data: bytes) -> float | None:
        assert self._cost is not None
        try:
            event = msgspec.json.decode(data, type=dict[str, Any])
            cost = None if _has_cost(event) else self._cost(event)
            dollars = None if cost is None else float(cost)
        except BaseException:  # the application's function: not even `sys.exit` ends this thread
            return _FAILED
        return dollars if dollars is None or math.isfinite(dollars) else _FAILED


def _has_cost(event: dict[str, Any]) -> bool:
    """Return whether the application, or an adapter, has said what it was. It is not overwritten."""
    metadata = event.get("metadata")
    return "cost" in event or not event or (isinstance(metadata, dict) and metadata.get("cost") is not None)


def _release_in(loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
    def release() -> None:
        if not done.done():
            done.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(release)
