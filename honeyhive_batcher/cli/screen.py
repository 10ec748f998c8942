"""Progress while a command runs: a bar on a terminal when rich is installed, else a line now and then."""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Final, Protocol, final

if TYPE_CHECKING:
    from rich.console import Console

LINE_INTERVAL: Final = 5.0
"""Seconds between two plain lines of progress."""


class Screen(Protocol):
    """What a command tells about itself while it runs."""

    def say(self, line: str) -> None:
        """Print a line that stays."""

    def show(self, text: str, fraction: float | None) -> None:
        """Show how far things are; `fraction` is from 0 to 1, or None when nobody knows."""

    def close(self) -> None:
        """Show nothing any more; `say` still works."""


@final
class PlainScreen:
    """Lines only."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown_at = clock()

    def say(self, line: str) -> None:
        """Print a line."""
        with contextlib.suppress(OSError):  # whoever read along is gone; the work goes on
            print(line, file=self._stream, flush=True)

    def show(self, text: str, fraction: float | None) -> None:  # noqa: ARG002 - the text says it
        """Print the text when the last one is long enough ago."""
        now = self._clock()
        if now >= self._shown_at + LINE_INTERVAL:
            self._shown_at = now
            self.say(text)

    def close(self) -> None:
        """Do nothing: what is printed stays."""


@final
class RichScreen:
    """A bar below the lines."""

    def __init__(self, console: "Console") -> None:
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - an extra

        self._console = console
        self._bar = Progress(
            BarColumn(bar_width=30),
            TextColumn("{task.description}", markup=False),
            console=console,
            auto_refresh=False,  # no thread: it is shown when there is news
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._bar.start()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        with contextlib.suppress(OSError):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, text: str, fraction: float | None) -> None:
        """Move the bar."""
        with contextlib.suppress(OSError):
            self._bar.update(
                self._task,
                description=text,
                total=None if fraction is None else 1.0,
                completed=fraction or 0.0,
            )
            self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        with contextlib.suppress(OSError):
            self._bar.stop()


def open_screen() -> Screen:
    """Return a screen for standard error."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return PlainScreen(sys.stderr)
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra
    except ImportError:
        return PlainScreen(sys.stderr)
    return RichScreen(Console(stderr=True))


def tell(*lines: str) -> None:
    """Print a command's result to standard output; if nobody reads it any more, that is no failure."""
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        # What Python flushes at exit goes to the same broken pipe, so it gets another one first
        # (docs.python.org, "Note on SIGPIPE").
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def tell_table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table to standard output: the first column to the left, the others to the right."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console  # noqa: PLC0415 - an extra
            from rich.table import Table  # noqa: PLC0415
        except ImportError:
            pass
        else:
            table = Table(title=title, title_justify="left")
            for position, name in enumerate(header):
                table.add_column(name, justify="right" if position else "left")
            for row in rows:
                table.add_row(*row)
            Console().print(table)
            return
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if position else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, *rows)
    ]
    tell(title, *(f"  {line}" for line in lines))
