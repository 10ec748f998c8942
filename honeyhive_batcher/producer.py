"""What every adapter needs of a batcher, and nothing else."""

from typing import Protocol

from honeyhive_batcher.core.model import Admission
from honeyhive_batcher.session import Session


class Producer(Protocol):
    """Something that takes events: a `Batcher`, a `BlockingBatcher`, a capture in a test."""

    def push(self, event: object, *, session: Session | None = None) -> Admission:
        """Take an event for delivery, or say why not. From any thread; never waits and never raises."""
        ...
