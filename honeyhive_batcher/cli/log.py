"""The library's warnings as short plain lines, without what a command says itself."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Functions of `runtime.reporter` whose lines about losses the commands word better: with the lines of
# the file, and in a summary.
_ABOUT_LOSSES = {"closed", "_tell_losses"}


class _Lines(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what the command says itself: losses, and that the server takes nothing."""
        if record.module != "reporter":
            return True
        is_about_the_endpoint = record.levelno == logging.ERROR and record.exc_info is None
        return not is_about_the_endpoint and record.funcName not in _ABOUT_LOSSES

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


@contextmanager
def library_log(say: Callable[[str], None]) -> Iterator[None]:
    """Pass the warnings of `honeyhive_batcher` to `say`, one line each."""
    logger = logging.getLogger("honeyhive_batcher")
    lines = _Lines(say)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.propagate = propagates
