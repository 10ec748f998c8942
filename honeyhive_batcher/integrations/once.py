"""One model call, one event, also where two adapters see the same call and neither can claim it.

Where the outer one cannot lend its context to the inner one (see `claims`), the id which the provider gave to
its answer tells: the first that names it to `is_news` tells the call; and where there was no answer, the
exception, or one that it was made of.
"""

import contextlib
import sys
import weakref
from collections import OrderedDict
from typing import Any

from honeyhive_batcher.integrations.locks import Lock
from honeyhive_batcher.producer import Producer

_REMEMBERED = 4096
"""Answers whose ids are remembered, for each batcher: many more than are ever under way at once."""

_CHAIN = 16
"""Errors that are looked at, of those that an error was made of."""


_told: weakref.WeakKeyDictionary[Producer, OrderedDict[str, None]] = weakref.WeakKeyDictionary()
_errors: weakref.WeakKeyDictionary[Producer, weakref.WeakSet[BaseException]] = weakref.WeakKeyDictionary()
_lock = Lock()


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
