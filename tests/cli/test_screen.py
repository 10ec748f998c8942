"""Progress, tables and the library's log as a command shows them."""

import builtins
import io
import logging
import sys
from collections import deque
from typing import Any

import pytest
from rich.console import Console

from honeyhive_batcher.cli import log
from honeyhive_batcher.cli.log import library_log
from honeyhive_batcher.cli.screen import LINE_INTERVAL, PlainScreen, RichScreen, open_screen, tell_table
from honeyhive_batcher.runtime.reporter import Reporter


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_progress_is_a_line_now_and_then() -> None:
    now = deque([0.0, LINE_INTERVAL - 0.1, LINE_INTERVAL, LINE_INTERVAL + 0.1, 2 * LINE_INTERVAL])
    stream = io.StringIO()
    screen = PlainScreen(stream, now.popleft)
    for text in ("early", "first", "again early", "second"):
        screen.show(text, 0.5)
    screen.close()
    assert stream.getvalue() == "first\nsecond\n"


def test_a_bar_stays_below_the_lines_and_goes_away() -> None:
    stream = FakeTerminal()
    screen = RichScreen(Console(file=stream, force_terminal=True, width=100))
    screen.show("half [red]way[/]", 0.5)
    screen.say("[bold] stays as it is")
    screen.show("nobody knows", None)
    shown = stream.getvalue()
    screen.close()
    screen.say("last")
    assert "half [red]way[/]" in shown
    assert "[bold] stays as it is\n" in shown
    assert "nobody knows" in shown
    assert stream.getvalue().endswith("last\n")


def test_lines_that_nobody_reads_hurt_nothing() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    PlainScreen(Broken()).say("x")


@pytest.mark.parametrize(
    ("is_terminal", "term", "has_rich", "kind"),
    [
        (True, "xterm", True, RichScreen),
        (True, "xterm", False, PlainScreen),
        (True, "dumb", True, PlainScreen),
        (False, "xterm", True, PlainScreen),
    ],
)
def test_a_bar_needs_a_terminal_and_rich(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, term: str, has_rich: bool, kind: type
) -> None:
    monkeypatch.setattr(sys, "stderr", FakeTerminal() if is_terminal else io.StringIO())
    monkeypatch.setenv("TERM", term)
    if not has_rich:
        forbid_rich(monkeypatch)
    screen = open_screen()
    screen.close()
    assert type(screen) is kind


def forbid_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *how: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return real(name, *how)

    monkeypatch.setattr(builtins, "__import__", importing)


@pytest.mark.parametrize("has_rich", [True, False])
def test_a_table_on_a_terminal_is_drawn_by_rich_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, has_rich: bool
) -> None:
    stream = FakeTerminal()
    monkeypatch.setattr(sys, "stdout", stream)
    if not has_rich:
        forbid_rich(monkeypatch)
    tell_table("Title", ("name", "count"), [("a", "1"), ("longer", "12")])
    drawn = stream.getvalue()
    assert "longer" in drawn
    assert ("┃" in drawn) == has_rich
    if not has_rich:
        assert drawn == "Title\n  name    count\n  a           1\n  longer     12\n"


def test_the_log_does_not_repeat_what_the_command_says() -> None:
    said: list[str] = []
    logger = logging.getLogger("honeyhive_batcher")
    with library_log(said.append):
        logger.info("not worth a line")
        logger.warning("from %s", "anywhere")
        for level, function, error in (
            (logging.WARNING, "_observe_endpoint", None),
            (logging.ERROR, "_observe_endpoint", None),
            (logging.WARNING, "closed", None),
            (logging.WARNING, "_tell_losses", None),
            (logging.ERROR, "failed", (ValueError, ValueError(), None)),
        ):
            logger.handle(
                logging.LogRecord(
                    logger.name, level, "reporter.py", 1, f"{level} {function}", (), error, function
                )
            )
    logger.warning("afterwards")
    assert said == ["from anywhere", "30 _observe_endpoint", "40 failed"]


def test_the_functions_that_the_log_leaves_out_exist() -> None:
    assert all(hasattr(Reporter, name) for name in log._ABOUT_LOSSES)
