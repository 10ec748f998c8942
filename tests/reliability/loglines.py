"""What the log says about an hour of trouble: a whole batcher in virtual time, whose queue overflows."""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from honeyhive_batcher import Batcher
from honeyhive_batcher.core.model import Failure, Response
from tests.fakes import FakeTransport, make_batcher
from tests.reliability.rows import Row, Size
from tests.virtual_time import now, run_virtually

HOUR = 3600.0
EVENT = {"event_type": "model", "event_name": "chat"}


class Line(Struct, frozen=True):
    """One line of the log, and when it came."""

    at: float
    level: int
    text: str


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(Line(at=now(), level=record.levelno, text=record.getMessage()))


async def _live(trouble: Any, per_second: int) -> None:
    transport = FakeTransport(otherwise=trouble)
    batcher: Batcher = make_batcher(transport, jitter=0.5, max_queue_events=1000)
    async with batcher:
        for _ in range(round(HOUR)):
            for _ in range(per_second):
                batcher.push(EVENT)
            await asyncio.sleep(1.0)
        transport.otherwise = Response(status=200)
        await asyncio.sleep(400.0)


def lines_of(trouble: Any, per_second: int) -> list[Line]:
    """Return what an hour of trouble and some minutes of health say."""
    logger, lines = logging.getLogger("honeyhive_batcher"), _Lines()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        run_virtually(lambda: _live(trouble, per_second))
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
        logger.propagate = propagates
    return lines.lines


def rows(size: Size) -> Iterator[Row]:
    """Live through hours of an outage and of a wrong key, slowly and in a flood of events."""
    flood = 20 if size is Size.QUICK else 1000
    for name, trouble, per_second, advice in (
        ("refused connections", Failure(cause="connection refused", unsent=True), 1, "kept and tried again"),
        ("refused connections", Failure(cause="connection refused", unsent=True), flood, "kept and tried"),
        ("401", Response(status=401), 1, "HH_API_KEY"),
    ):
        lines = lines_of(trouble, per_second)
        count = Counter(line.level for line in lines)
        errors, warnings, infos = count[logging.ERROR], count[logging.WARNING], count[logging.INFO]
        losses = [line.at for line in lines if "events lost" in line.text]
        pause = min((late - early for early, late in itertools.pairwise(losses)), default=HOUR)
        says_what_to_do = all(advice in line.text for line in lines if line.level == logging.ERROR)
        yield Row(
            bar=18,
            what=f"an hour of {name} at {per_second} events/s: lines in the log",
            figure=f"{errors} ERROR, {warnings} WARNING, {infos} INFO; {pause:.0f} s between losses",
            bound="1 ERROR that says what follows, at most 20 WARNING, 1 INFO; at least 60 s",
            holds=(errors, infos) == (1, 1) and warnings <= 20 and pause >= 60.0 and says_what_to_do,
        )
