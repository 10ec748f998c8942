"""The lock of an adapter, which is called in whatever state its host happens to be."""

import threading
from typing import final

from honeyhive_batcher.runtime.fork import at_fork


@final
class Lock:
    """A lock that its own thread may take again, and that a forked child finds free.

    A stream that is cleaned up calls its adapter back, at any allocation of any thread: also of one that
    holds the lock.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        at_fork(self)

    def after_fork(self) -> None:
        """Free it, in the child: who held it may be a thread of the parent."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_exception: object) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            return  # this is the child of a fork inside
