"""The queued events of one key: they share a request, because what is said once in its body is the same."""

import itertools
from collections import deque
from typing import final

from honeyhive_batcher.core import wire
from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment, GroupKey


@final
class Group:
    """The queued fragments of one key.

    Invariant: `queued_bytes` is what the events add to a body, a comma each; `away` counts the
    fragments that were cut and are not settled, for groups with a session only; `charged` is what its
    properties hold of the queue's bound until it vanishes.
    """

    __slots__ = (
        "away",
        "charged",
        "fragments",
        "key",
        "overhead",
        "queued_bytes",
        "stands_in_line",
    )

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.overhead = wire.overhead(key) - 1  # the first event has no comma before it
        self.fragments: deque[Fragment] = deque()
        self.queued_bytes = 0
        self.away = 0
        self.charged = 0
        self.stands_in_line = False

    def is_full(self, max_events: int, max_bytes: int) -> bool:
        """Whether these fill a batch, or would fill its body."""
        return len(self.fragments) >= max_events or self.overhead + self.queued_bytes >= max_bytes

    def take(self, max_events: int, max_bytes: int) -> tuple[list[Fragment], int]:
        """Take the first events out, as many as a batch may have and its body hold, but one at least; return
        them and their bytes.
        """
        queue = self.fragments
        if self.key is SESSIONLESS:  # without closings; mostly all fit, and then no single one needs a look
            taken = list(itertools.islice(queue, max_events))
            size = sum([len(fragment.data) for fragment in taken])
            if self.overhead + size + len(taken) <= max_bytes:
                for _ in taken:
                    queue.popleft()
                return taken, size
        taken, size = [], 0
        while queue and len(taken) < max_events and not queue[0].closing:
            length = len(queue[0].data)
            if taken and self.overhead + size + length + len(taken) + 1 > max_bytes:
                break
            taken.append(queue.popleft())
            size += length
        return taken, size

    @property
    def waits(self) -> bool:
        """A closing that is alone waits until all events of its session are settled: it updates what
        they create.
        """
        return self.away > 0 and bool(self.fragments[0].closing)
