"""What becomes of an adapter's own failure: it is counted, told once, and never reaches the caller."""

import logging

from honeyhive_batcher.errors import InternalError
from honeyhive_batcher.producer import Producer
from honeyhive_batcher.runtime.reporter import say

_told: set[str] = set()


def count_failure(batcher: Producer, adapter: str, error: BaseException) -> None:
    """Count a call of which `adapter` could not make an event: offered, and refused as `not_an_event`.

    The first of each adapter is logged, with its traceback. Never raises.
    """
    if adapter not in _told:
        _told.add(adapter)
        # It may quote what it stumbled over, a message say: only where and which is told.
        trace = InternalError(type(error).__name__).with_traceback(error.__traceback__)
        say(
            logging.WARNING,
            "%s could not make an event of a call; more are only counted",
            adapter,
            kind="adapter_failed",
            adapter=adapter,
            raised=type(error).__name__,
            error=trace,
        )
    batcher.push(None)
