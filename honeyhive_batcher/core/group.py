"""The queued events of one key: they share a request, because what is said once in its body is the same."""

from collections import deque
from typing import final

from honeyhive_batcher.core import wire
from honeyhive_batcher.core.fragment import Fragment, GroupKey


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

    @property
    def waits(self) -> bool:
        """A closing that is alone waits until all events of its session are settled: it updates what
        they create.
        """
        return self.away > 0 and bool(self.fragments[0].closing)
