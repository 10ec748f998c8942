"""What the package logs while a scenario runs."""

import contextlib
import logging
from collections.abc import Iterator


class _Lines(logging.Handler):
    def __init__(self, lines: list[tuple[int, str]]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.levelno, record.getMessage()))


@contextlib.contextmanager
def log_lines() -> Iterator[list[tuple[int, str]]]:
    """Collect the level and the text of every line, and let none of them through to the terminal."""
    lines: list[tuple[int, str]] = []
    handler = _Lines(lines)
    logger = logging.getLogger("honeyhive_batcher")
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates
