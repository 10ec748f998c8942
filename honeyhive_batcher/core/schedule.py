"""Which attempt goes next, and when: the pieces of split batches, and the retries by their instant.

A waiting retry is an entry in a heap: it holds no task and no send slot.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import final

import msgspec

from honeyhive_batcher.core.model import Attempt, Batch
from honeyhive_batcher.core.retry import Budget

NOW = float("-inf")
"""An instant that has always passed: at once."""
_MOST_PROBING = 16
"""Batches that take turns in asking whether an endpoint is down still: more than there are likely to be that
it fails at by themselves, and few beside a queue.
"""


@final
class Schedule:
    """The attempts that were cut from the queue and are not in flight."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._ready: deque[Attempt] = deque()
        self._waiting: list[tuple[float, int, Attempt]] = []
        self._order = itertools.count()  # decides between attempts that wait for the same instant

    def add(self, attempt: Attempt) -> None:
        """Let an attempt go as soon as a slot is free: a piece of a batch that the server answered."""
        self._ready.append(attempt)

    def wait(self, attempt: Attempt) -> None:
        """Let an attempt go at its instant, when the budget for retries allows it."""
        heapq.heappush(self._waiting, (attempt.due_at, next(self._order), attempt))

    def hurry(self) -> None:
        """Bring all that wait forward, as extra tries; in the order in which they were due."""
        self._waiting = [
            (NOW, order, msgspec.structs.replace(attempt, early=True))
            for order, (_, _, attempt) in enumerate(sorted(self._waiting))
        ]

    def next(self, now: float, cut: Callable[[float], Batch | None], *, is_down: bool) -> Attempt | None:
        """Take the attempt that goes at `now`, if there is one: what waits comes before what `cut` gives.

        Not while the endpoint is down: what the server fails at by itself must not be all there is to ask
        with. So some batches take turns; what is not among them may still be evicted.
        """
        if is_down and len(self._ready) + len(self._waiting) < _MOST_PROBING:
            return _first(cut(now)) or self._take(now)
        return self._take(now) or _first(cut(now))

    def _take(self, now: float) -> Attempt | None:
        if self._ready:
            return self._ready.popleft()
        if self._waiting and max(self._waiting[0][0], self.budget.opens_at) <= now:
            self.budget.take(now)
            return heapq.heappop(self._waiting)[2]
        return None

    def due_at(self) -> float | None:
        """Return the instant from which `next` needs no `cut`; None for never."""
        if self._ready:
            return NOW
        if self._waiting:
            return max(self._waiting[0][0], self.budget.opens_at)
        return None

    @property
    def all(self) -> list[Attempt]:
        """All attempts, first those that may go at once."""
        return [*self._ready, *(attempt for _, _, attempt in self._waiting)]

    def take_all(self) -> list[Attempt]:
        """Take all attempts out."""
        taken = self.all
        self._ready.clear()
        self._waiting.clear()
        return taken


def _first(batch: Batch | None) -> Attempt | None:
    return None if batch is None else Attempt(batch=batch)
