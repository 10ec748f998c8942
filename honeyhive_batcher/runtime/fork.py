"""What a forked child inherits of this package: it begins anew, and leaves the parent's things alone.

Loops, tasks and sockets of the parent are shared with it. Were the child to close them, or only let Python
clean them up, the parent's loop would stop to watch its connections, and a TLS connection would end.
"""

import logging
import os
import weakref
from typing import Protocol

from msgspec import Struct

from honeyhive_batcher.runtime.reporter import say


class Inherited(Protocol):
    """Something that lives on in a forked child."""

    def after_fork(self) -> None:
        """Begin anew, in the child. Must not wait for a lock: its holder may be a thread of the parent."""


class Settling(Protocol):
    """Something that a fork must not strike in its midst."""

    def settle(self) -> None:
        """Wait for its end, within bounds, in whichever thread is going to fork."""


class _Kept(Struct, gc=False):
    what: object
    itself: object = None


_living: weakref.WeakSet[Inherited] = weakref.WeakSet()
_settling: weakref.WeakSet[Settling] = weakref.WeakSet()
_process = os.getpid()


def at_fork(inherited: Inherited) -> None:
    """Have `after_fork` called in the children that are forked while `inherited` lives."""
    _living.add(inherited)


def before_fork(settling: Settling) -> None:
    """Have `settle` called before this process forks, while `settling` lives."""
    _settling.add(settling)


def keep_for_ever(what: object) -> None:
    """Let nothing of this ever be cleaned up, not even at the end of the program."""
    kept = _Kept(what)
    kept.itself = kept  # a cycle that the garbage collector does not see: that is what `gc=False` means


def notice_fork(held: int) -> None:
    """Begin anew if this process was forked and Python was not told, as when C code does it (uWSGI).

    Called where it costs nothing. A push does not ask: that would cost it more than all the rest. So of the
    `held` events some may be this process's own.
    """
    if os.getpid() == _process:
        return
    _begin_anew()
    if held:
        say(
            logging.WARNING,
            "forked, and Python was not told: %d events, some of this process maybe, are left to the "
            "parent; start first, then push",
            held,
            kind="forked_unseen",
            held=held,
        )


def _begin_anew() -> None:
    global _process  # noqa: PLW0603 - it is the process that it speaks of
    _process = os.getpid()
    for inherited in list(_living):
        inherited.after_fork()


def _settle() -> None:
    for settling in list(_settling):
        settling.settle()


# Once for all: what is registered here can never be removed. Nothing waits before the fork for a lock, which
# may be that of somebody whom a signal handler interrupted, and so for ever.
getattr(os, "register_at_fork", lambda **_: None)(  # Windows has no forks
    before=_settle, after_in_child=_begin_anew
)
