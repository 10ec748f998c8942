"""Who tells of a model call that several see: the outer one claims it for as long as it lasts.

A LangChain handler and the instrumented OpenAI client under it, say. An inner one that finds a claim for its
batcher keeps silent, or hands over what it has heard.

An outer one that is only called back cannot take its claim out of the caller's context again, and may never
hear of the end of a call that was cancelled. So its claim names what has to be on the stack: what the program
calls itself, elsewhere, is not silenced by a claim that was left behind.
"""

import contextlib
import contextvars
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, final

from honeyhive_batcher.producer import Producer


@final
class Claim:
    """That somebody is going to tell `batcher` of a call."""

    def __init__(
        self,
        batcher: Producer,
        within: Callable[[FrameType], bool] | None = None,
        *,
        is_deaf: bool = False,
    ) -> None:
        self.batcher = batcher
        self.within = within
        """What one of the frames that lead to the claimed call has to be; None when any do."""
        self.is_open = True
        self.is_deaf = is_deaf
        """Whether who claims sees nothing of the call itself, and is told of it by an adapter below."""
        self.heard: dict[str, Any] | None = None
        """What an adapter below has told of the call."""

    def close(self) -> None:
        """End the claim, in all contexts that have it."""
        self.is_open = False

    def hear(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """Take what an adapter has heard of a call that began under this claim; return the event that it has
        to tell itself, None if there is none.

        A deaf claim stands for one call: of several for the last that ended before it was closed.
        """
        if not self.is_deaf:
            return None
        if not self.is_open and self.heard is not None:
            return event
        earlier, self.heard = self.heard, event
        return earlier


_claims: contextvars.ContextVar[tuple[Claim, ...]] = contextvars.ContextVar(
    "honeyhive_batcher_claims", default=()
)


def claim_on(batcher: Producer) -> Claim | None:
    """Return the innermost claim under which a call falls that is made here, if there is one."""
    for each in reversed(_claims.get()):
        if each.is_open and each.batcher is batcher and (each.within is None or _is_within(each.within)):
            return each
    return None


def is_claimed(batcher: Producer) -> bool:
    """Return whether somebody else is going to tell `batcher` of the call that is made here."""
    return claim_on(batcher) is not None


@contextlib.contextmanager
def claim(batcher: Producer) -> Iterator[None]:
    """Claim the calls made inside: adapters below keep silent towards `batcher`."""
    opened = Claim(batcher)
    with enclosed(opened):
        try:
            yield
        finally:
            opened.close()


@contextlib.contextmanager
def enclosed(opened: Claim) -> Iterator[None]:
    """Have a claim hold inside, once more."""
    enter(opened)
    try:
        yield
    finally:
        leave(opened)


def enter(opened: Claim) -> None:
    """Have a claim hold from here on, in this context and those made from it."""
    # Those that were closed in a copy of this context leave it here.
    _claims.set((*(each for each in _claims.get() if each.is_open), opened))


def leave(opened: Claim) -> None:
    """Have a claim hold no longer here. Not by a token: a stream may end in another context than it began
    in, which has claims of its own.
    """
    _claims.set(tuple(each for each in _claims.get() if each is not opened))


def open_claim(batcher: Producer, within: Callable[[FrameType], bool]) -> Claim:
    """Claim the calls that are made below such a frame, in this context and those made from it, until the
    claim is closed.
    """
    opened = Claim(batcher, within)
    enter(opened)
    return opened


def _is_within(is_it: Callable[[FrameType], bool]) -> bool:
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the public door makes a list with source lines
    while frame is not None:
        if is_it(frame):
            return True
        frame = frame.f_back
    return False
