"""One model call, one event: where two adapters see the same call, the outer one tells it.

A LangChain handler and the instrumented OpenAI client under it, say. The outer adapter claims the call for
as long as it lasts; an inner one that finds a claim for its batcher keeps silent. Where the outer one cannot
lend its context to the inner one, the id which the provider gave to its answer tells: the first that names it
to `is_news` tells the call; and where there was no answer, the exception, or one that it was made of.

An outer adapter that is only called back cannot take its claim out of the caller's context again, and may
never hear of the end of a call that was cancelled. So its claim names what has to be on the stack: what the
program calls itself, elsewhere, is not silenced by a claim that was left behind.
"""

import contextlib
import contextvars
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, final

from honeyhive_batcher.integrations.locks import Lock
from honeyhive_batcher.producer import Producer

_REMEMBERED = 4096
"""Answers whose ids are remembered, for each batcher: many more than are ever under way at once."""

_CHAIN = 16
"""Errors that are looked at, of those that an error was made of."""


@final
class Claim:
    """That an adapter is going to tell `batcher` of a call."""

    def __init__(self, batcher: Producer, within: Callable[[FrameType], bool] | None = None) -> None:
        self.batcher = batcher
        self.within = within
        """What one of the frames that lead to the claimed call has to be; None when any do."""
        self.is_open = True

    def close(self) -> None:
        """End the claim, in all contexts that have it."""
        self.is_open = False


_claims: contextvars.ContextVar[tuple[Claim, ...]] = contextvars.ContextVar(
    "honeyhive_batcher_claims", default=()
)
_told: weakref.WeakKeyDictionary[Producer, OrderedDict[str, None]] = weakref.WeakKeyDictionary()
_errors: weakref.WeakKeyDictionary[Producer, weakref.WeakSet[BaseException]] = weakref.WeakKeyDictionary()
_lock = Lock()


def is_claimed(batcher: Producer) -> bool:
    """Return whether an outer adapter is going to tell `batcher` of the call that is made here."""
    claims = _claims.get()
    if not claims:
        return False  # the usual case, kept short
    mine = [each for each in claims if each.is_open and each.batcher is batcher]
    return any(each.within is None or _is_within(each.within) for each in mine)


@contextlib.contextmanager
def claim(batcher: Producer) -> Iterator[None]:
    """Claim the calls made inside: adapters below keep silent towards `batcher`."""
    before = _claims.get()
    _claims.set((*before, Claim(batcher)))
    try:
        yield
    finally:
        _claims.set(before)  # not by a token: a stream may end in another context than it began in


def open_claim(batcher: Producer, within: Callable[[FrameType], bool]) -> Claim:
    """Claim the calls that are made below such a frame, in this context and those made from it, until the
    claim is closed.
    """
    opened = Claim(batcher, within)
    # Those that were closed in a copy of this context leave it here.
    _claims.set((*(each for each in _claims.get() if each.is_open), opened))
    return opened


def is_news(batcher: Producer, answer_id: str | None) -> bool:
    """Return whether nobody has told `batcher` of the answer with this id, and note that somebody does now.

    An answer without an id is always news.
    """
    if not answer_id:
        return True
    with _lock:
        told = _told.setdefault(batcher, OrderedDict())
        if answer_id in told:
            return False
        told[answer_id] = None
        if len(told) > _REMEMBERED:
            told.popitem(last=False)
        return True


def is_new_error(batcher: Producer, error: BaseException | None) -> bool:
    """Return whether nobody has told `batcher` of this error, nor of one that it was made of, and note that
    somebody does now.

    What cannot be referred to weakly, as most of Python's own errors, is always new. An OpenTelemetry span
    that is open here is noted as well: it will tell of the error in words only.
    """
    chain: list[BaseException] = []
    while error is not None and len(chain) < _CHAIN:
        chain.append(error)
        error = error.__cause__ or error.__context__
    with _lock:
        told = _errors.setdefault(batcher, weakref.WeakSet())
        try:
            if any(each in told for each in chain):
                return False
        except TypeError:  # it cannot be compared, or hashed
            return True
        with contextlib.suppress(TypeError):
            told.update(chain[:1])
    opentelemetry = sys.modules.get("opentelemetry.trace")  # not imported: who uses it has done so
    if chain and opentelemetry is not None:
        with contextlib.suppress(Exception):  # another version of it
            is_news(batcher, span_key(opentelemetry.get_current_span().get_span_context()))
    return True


def span_key(context: Any) -> str:
    """Return what stands for a failed span of OpenTelemetry's where there is no answer with an id."""
    return f"span {context.trace_id:032x} {context.span_id:016x}"


def _is_within(is_it: Callable[[FrameType], bool]) -> bool:
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the public door makes a list with source lines
    while frame is not None:
        if is_it(frame):
            return True
        frame = frame.f_back
    return False
