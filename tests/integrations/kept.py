"""A producer for tests that keeps what it is given."""

from typing import Any

from honeyhive_batcher import Admission
from honeyhive_batcher.session import Session, current


class Kept:
    """Keeps events, and the sessions that were bound where each was pushed."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.bound: list[tuple[Session, ...]] = []

    def push(self, event: object, *, session: Session | None = None) -> Admission:
        """Keep an event."""
        self.events.append(event)
        self.bound.append(current.get())
        return Admission.ACCEPTED if event else Admission.NOT_AN_EVENT
