"""One model call, one event, also where two adapters see the same call and neither can claim it.

Where the outer one cannot lend its context to the inner one (see `claims`), the id which the provider gave to
its answer tells: the first that names it to `is_news` tells the call; and where there was no answer, the
exception, or one that it was made of.

Neither is told apart by itself only: some providers give the same id to many answers, and who calls another
model because a call has failed has that failure behind every later one.
"""

import contextlib
import math
import sys
import time
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from honeyhive_batcher.integrations.locks import Lock
from honeyhive_batcher.producer import Producer

_REMEMBERED = 4096
"""Answers whose ids are remembered, for each batcher: many more than are ever under way at once."""

_CHAIN = 16
"""Errors that are looked at, of those that an error was made of."""


_told: weakref.WeakKeyDictionary[Producer, OrderedDict[str, dict[Hashable, tuple[int, Hashable]]]] = (
    weakref.WeakKeyDictionary()
)
"""Of each answer, who has named it: how often, and of which call the last time."""
_errors: weakref.WeakKeyDictionary[Producer, weakref.WeakKeyDictionary[BaseException, float]] = (
    weakref.WeakKeyDictionary()
)
"""When each was told."""
_lock = Lock()


def is_news(batcher: Producer, answer_id: str | None, teller: Hashable = None, call: Hashable = None) -> bool:
    """Return whether nobody else has told `batcher` of the answer with this id, and note that `teller` does
    now.

    What one names for the second time is its second answer with this id, unless it says that the `call` is
    the same: then it is news if nobody else has told of two. An answer without an id is always news.
    """
    if not answer_id:
        return True
    with _lock:
        told = _told.setdefault(batcher, OrderedDict())
        tellers = told.setdefault(answer_id, {})
        told.move_to_end(answer_id)
        if len(told) > _REMEMBERED:
            told.popitem(last=False)
        times, latest = tellers.get(teller, (0, None))
        if call is not None and latest == call:
            return False
        others = max((named for each, (named, _) in tellers.items() if each != teller), default=0)
        tellers[teller] = times + 1, call
        return times >= others


def is_new_error(batcher: Producer, error: BaseException | None, since: float = -math.inf) -> bool:
    """Return whether nobody has told `batcher` of this error, nor of one that it was made of, and note that
    somebody does now.

    `since` is when the call began, by `time.perf_counter`: what was told before is of an earlier call, whose
    failure was being handled. What cannot be referred to weakly, as most of Python's own errors, is always
    new. An OpenTelemetry span that is open here is noted as well: it will tell of the error in words only.
    """
    chain: list[BaseException] = []
    while error is not None and len(chain) < _CHAIN:
        chain.append(error)
        error = error.__cause__ or error.__context__
    with _lock:
        told = _errors.setdefault(batcher, weakref.WeakKeyDictionary())
        for each in chain:
            with contextlib.suppress(TypeError):  # it cannot be referred to weakly, or hashed
                if told.get(each, math.nan) >= since:
                    return False
        for each in chain[:1]:
            with contextlib.suppress(TypeError):
                told[each] = time.perf_counter()
    opentelemetry = sys.modules.get("opentelemetry.trace")  # not imported: who uses it has done so
    if chain and opentelemetry is not None:
        with contextlib.suppress(Exception):  # another version of it
            is_news(batcher, span_key(opentelemetry.get_current_span().get_span_context()), "an error")
    return True


def span_key(context: Any) -> str:
    """Return what stands for a failed span of OpenTelemetry's where there is no answer with an id."""
    return f"span {context.trace_id:032x} {context.span_id:016x}"
