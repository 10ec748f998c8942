"""Ctrl-C and SIGTERM as calls in the event loop instead of exceptions anywhere."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def signals_caught(on_signal: Callable[[int], None]) -> Iterator[None]:
    """Have `on_signal(number)` called in the running event loop for every SIGINT and SIGTERM.

    signal.signal, not loop.add_signal_handler, which Windows does not have.
    """
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [
        signal.signal(number, lambda number, _: loop.call_soon_threadsafe(on_signal, number))
        for number in numbers
    ]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)


def exit_code(number: int) -> int:
    """Return the exit code of a program that a signal ended, as shells count it."""
    return 128 + number
