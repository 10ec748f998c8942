"""What every adapter needs of a batcher, and nothing else."""

import weakref
from typing import Protocol

from honeyhive_batcher.core.model import Admission
from honeyhive_batcher.session import Session


class Producer(Protocol):
    """Something that takes events: a `Batcher`, a `BlockingBatcher`, a capture in a test."""

    def push(self, event: object, *, session: Session | None = None) -> Admission:
        """Take an event for delivery, or say why not. From any thread; never waits and never raises."""
        ...


_started: "weakref.ref[Producer] | None" = None


def note_start(producer: Producer) -> None:
    """Remember that this one has been started, after all others."""
    global _started  # noqa: PLW0603 - there is one that is the last
    _started = weakref.ref(producer)


def latest_started() -> Producer | None:
    """Return the one that was started last; None if there was none, or it is gone."""
    return None if _started is None else _started()
