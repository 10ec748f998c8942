"""One model call, one event: where two adapters see the same call, the outer one tells it.

A LangChain handler and the instrumented OpenAI client under it, say. The outer adapter claims the call for
as long as it lasts; an inner one that finds a claim for its batcher keeps silent. Where the outer one cannot
lend its context to the inner one (a handler that runs in a task of its own), the id which the provider gave
to its answer tells: the first that names it to `is_news` tells the call.
"""

import contextlib
import contextvars
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator

from honeyhive_batcher.producer import Producer

_REMEMBERED = 4096
"""Answers whose ids are remembered, for each batcher: many more than are ever under way at once."""

_claims: contextvars.ContextVar[tuple[Producer, ...]] = contextvars.ContextVar(
    "honeyhive_batcher_claims", default=()
)
_told: weakref.WeakKeyDictionary[Producer, OrderedDict[str, None]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def is_claimed(batcher: Producer) -> bool:
    """Return whether an outer adapter is going to tell `batcher` of the call that is made here."""
    claims = _claims.get()
    return bool(claims) and any(each is batcher for each in claims)


@contextlib.contextmanager
def claim(batcher: Producer) -> Iterator[None]:
    """Claim the calls made inside: adapters below keep silent towards `batcher`."""
    before = _claims.get()
    _claims.set((*before, batcher))
    try:
        yield
    finally:
        _claims.set(before)  # not by a token: a stream may end in another context than it began in


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
