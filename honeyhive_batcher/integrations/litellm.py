"""LiteLLM: one event for every call of a language model.

litellm.callbacks = [callback(batcher)]
"""

import asyncio
import contextlib
import math
import time
import weakref
from collections.abc import Mapping
from functools import cache
from typing import Any, final

from honeyhive_batcher.claims import is_claimed
from honeyhive_batcher.integrations.calls import UnderWay, push_within
from honeyhive_batcher.integrations.failures import count_failure
from honeyhive_batcher.integrations.litellm_values import answer_id, model_event
from honeyhive_batcher.integrations.locks import Lock
from honeyhive_batcher.integrations.once import is_new_error, is_news
from honeyhive_batcher.producer import Producer
from honeyhive_batcher.session import Session, current

_NAME = "the adapter of LiteLLM"
_loggers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""By the identity of their batcher, which lives as long as its logger."""
_making = Lock()
_LOOK = 0.01
"""Seconds between two looks at what is under way."""


def callback(batcher: Producer) -> Any:
    """Return a `CustomLogger` that tells `batcher` of every call, successful or not: the same one each time.

    The session is that of `metadata={"session_id": ...}` or `litellm_session_id=`, else the one that is
    bound where the call is made. The cost is LiteLLM's. Never raises into a call, and never waits.

    Raises:
        ImportError: `litellm` is not installed.
    """
    with _making:
        logger = _loggers.get(id(batcher))
        if logger is None:
            logger = _loggers[id(batcher)] = _logger_class()(batcher)
        return logger


async def told(batcher: Producer, timeout: float = 5.0) -> bool:
    """Wait until LiteLLM has told of every call that has begun, at most so many seconds; return if it has.

    Of a call that was cancelled, and of a stream that was left, it never does.
    """
    logger = _loggers.get(id(batcher))
    if logger is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while logger.calls.under_way:  # noqa: ASYNC110 - ended from any loop and any thread
                    await asyncio.sleep(_LOOK)
    return logger is None or not logger.calls.under_way


@final
class _Calls:
    """Turns what LiteLLM says into events. Nothing here raises, from any thread."""

    def __init__(self, batcher: Producer) -> None:
        self._batcher = batcher
        self._under_way = UnderWay[tuple[bool, tuple[Session, ...], float]]()

    @property
    def under_way(self) -> int:
        """How many have begun, and not ended."""
        return len(self._under_way)

    def begin(self, call: Mapping[str, Any]) -> None:
        """Note what is bound where a call is made: its end may be told from another thread."""
        try:
            known = is_claimed(self._batcher), current.get(), time.perf_counter()
            self._under_way.begin(call.get("litellm_call_id"), known)
        except Exception as error:  # whatever it hands over
            count_failure(self._batcher, _NAME, error)

    def end(self, call: Mapping[str, Any]) -> None:
        """Tell of a call that has ended."""
        try:
            call_id = call.get("litellm_call_id")
            known = self._under_way.end(call_id)
            claimed, sessions, began = known or (False, current.get(), -math.inf)
            event = None if claimed else model_event(call)
            if event is None or not is_new_error(self._batcher, call.get("exception"), began):
                return
            if is_news(self._batcher, answer_id(call), _NAME, call_id):  # it may tell of one call twice
                push_within(self._batcher, event, sessions)
        except Exception as error:  # whatever a strange answer raises when it is read
            count_failure(self._batcher, _NAME, error)


@cache
def _logger_class() -> Any:
    try:
        from litellm.integrations.custom_logger import CustomLogger  # noqa: PLC0415 - optional, and slow
    except ImportError:
        raise ImportError("this needs LiteLLM: pip install litellm") from None

    class HoneyHiveLogger(CustomLogger):  # type: ignore[misc]  # Any here: optional
        """Hands what LiteLLM says on. An object of another class it would not call."""

        def __init__(self, batcher: Producer) -> None:
            super().__init__()
            self.calls = _Calls(batcher)
            # LiteLLM takes loggers of one class for the same if no plain attribute differs.
            self.batcher_id = id(batcher)

        def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:  # noqa: ARG002 - LiteLLM's
            self.calls.begin(kwargs)

        def log_success_event(self, kwargs: Any, *_more: Any, **_named: Any) -> None:
            self.calls.end(kwargs)

        def log_failure_event(self, kwargs: Any, *_more: Any, **_named: Any) -> None:
            self.calls.end(kwargs)

        async def async_log_success_event(self, kwargs: Any, *_more: Any, **_named: Any) -> None:
            self.calls.end(kwargs)

        async def async_log_failure_event(self, kwargs: Any, *_more: Any, **_named: Any) -> None:
            self.calls.end(kwargs)

    return HoneyHiveLogger
