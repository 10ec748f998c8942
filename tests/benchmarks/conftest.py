"""What a benchmark does to its process, which is a process of its own otherwise, is undone."""

import logging
import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Give the batcher's logger its level back, and the process its cores."""
    logger = logging.getLogger("honeyhive_batcher")
    level = logger.level
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    logger.setLevel(level)
    if cores is not None:
        os.sched_setaffinity(0, cores)
