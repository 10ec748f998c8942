"""Calls of which an adapter has heard the beginning and not yet the end."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar, final

from honeyhive_batcher.integrations.locks import Lock
from honeyhive_batcher.producer import Producer
from honeyhive_batcher.runtime.fork import at_fork
from honeyhive_batcher.session import Session, current

_MAX_UNDER_WAY = 10_000
"""Calls kept at once. More are hardly under way: the oldest has ended, and nobody said so."""

Call = TypeVar("Call")


@final
class UnderWay(Generic[Call]):
    """Keeps what is known of a call until it ends. Bounded, and safe in any thread."""

    def __init__(self) -> None:
        self._calls: OrderedDict[Hashable, Call] = OrderedDict()
        self._lock = Lock()
        at_fork(self)

    def after_fork(self) -> None:
        """Forget, in the child: what is under way in the parent does not end here."""
        self._calls = OrderedDict()

    def begin(self, key: Hashable, call: Call) -> Call | None:
        """Keep a call; return the one that has to go for it."""
        with self._lock:
            self._calls[key] = call
            return self._calls.popitem(last=False)[1] if len(self._calls) > _MAX_UNDER_WAY else None

    def get(self, key: Hashable) -> Call | None:
        """Return a call that is kept."""
        return self._calls.get(key)

    def end(self, key: Hashable) -> Call | None:
        """Return a call and keep it no longer; None when it is not known, or has ended already."""
        with self._lock:
            return self._calls.pop(key, None)

    def __len__(self) -> int:
        return len(self._calls)


def push_within(batcher: Producer, event: object, sessions: tuple[Session, ...]) -> None:
    """Push an event where these sessions are bound: those of the call's beginning. Its end may come from
    another context.
    """
    token = current.set(sessions)
    try:
        batcher.push(event)
    finally:
        current.reset(token)
