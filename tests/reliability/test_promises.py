"""What the README promises about losses, line by line: each names tests, and no loss is missing."""

import asyncio
import importlib
import logging
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from honeyhive_batcher import Admission, Batcher
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.model import DropReason, Fate, Response
from honeyhive_batcher.testing import Collector, collector_in_thread
from tests.fakes import HANG, OK, RESET, FakeTransport, Step, check_ledger, fates, make_batcher
from tests.programs import run_program, start_program
from tests.virtual_time import run_virtually

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
_HEADING = "\n## What can be lost, when, and how you will know\n"
_TEST = re.compile(r"`(tests/[\w/]+)\.py::([Tt]est\w+)`")

EVENT = {"model": "gpt-4o"}


def section() -> list[str]:
    """Return the paragraphs and the lines of the tables, without what only gives them a form."""
    _, _, rest = README.partition(_HEADING)
    found: list[str] = []
    for block in rest.partition("\n## ")[0].strip().split("\n\n"):
        lines = block.splitlines()
        found += lines[2:] if lines[0].startswith("|") else [" ".join(lines)]
    return found


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def names_of_losses() -> list[str]:
    refused = [admission.value for admission in Admission if not admission]
    return [*refused, *DropReason, Fate.UNCONFIRMED.value]


# The section.


@pytest.mark.parametrize("line", section())
def test_every_line_names_tests_that_exist(line: str) -> None:
    if line.startswith("|"):
        assert len(cells(line)) == 4
        named = _TEST.findall(cells(line)[3])
        assert _TEST.sub("", cells(line)[3]).strip() == ""
    else:
        named = _TEST.findall(line)
        assert line.rstrip(".)").endswith("`")  # a paragraph ends with its tests
    assert named
    for path, name in named:
        module = importlib.import_module(path.replace("/", "."))
        assert callable(getattr(module, name)), f"{path}.py::{name}"


def test_every_loss_has_its_line() -> None:
    lines = [cells(line)[0] for line in section() if line.startswith("|")]
    for name in names_of_losses():
        assert lines.count(f"`{name}`") == names_of_losses().count(name), name


# Each name of a loss, as a program sees it.


def lost_lines(caplog: pytest.LogCaptureFixture) -> str:
    return "; ".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


Scenario: TypeAlias = Callable[[], Awaitable[Batcher]]


async def _idle(transport: FakeTransport, **settings: Any) -> Batcher:
    """Return a batcher whose worker has nothing more to do, and so will not look by chance."""
    batcher = await make_batcher(transport, **settings).start()
    await asyncio.sleep(1)
    return batcher


async def _full() -> Batcher:
    batcher = await _idle(FakeTransport(HANG), max_queue_events=1, flush_interval=0)
    assert batcher.push(EVENT)
    await asyncio.sleep(1)
    assert batcher.push(EVENT) is Admission.QUEUE_FULL
    return batcher


async def _too_large() -> Batcher:
    batcher = await _idle(FakeTransport(), max_event_bytes=2000)
    assert batcher.push({"inputs": "x" * 3000}) is Admission.TOO_LARGE
    return batcher


async def _not_an_event() -> Batcher:
    batcher = await _idle(FakeTransport())
    assert batcher.push("no event") is Admission.NOT_AN_EVENT
    return batcher


async def _filtered() -> Batcher:
    batcher = await _idle(FakeTransport(), before_send=lambda _: None)
    assert batcher.push(EVENT) is Admission.FILTERED
    return batcher


async def _sampled() -> Batcher:
    batcher = await _idle(FakeTransport(), sample_rate=0)
    assert batcher.push(EVENT) is Admission.SAMPLED
    return batcher


async def _closed() -> Batcher:
    batcher = await _idle(FakeTransport())
    await batcher.aclose()
    assert batcher.push(EVENT) is Admission.CLOSED
    return batcher


REFUSALS: dict[Admission, Scenario] = {
    Admission.QUEUE_FULL: _full,
    Admission.TOO_LARGE: _too_large,
    Admission.NOT_AN_EVENT: _not_an_event,
    Admission.FILTERED: _filtered,
    Admission.SAMPLED: _sampled,
    Admission.CLOSED: _closed,
}


@pytest.mark.parametrize("refusal", [admission for admission in Admission if not admission], ids=str)
def test_every_refusal_is_answered_counted_and_logged(
    refusal: Admission, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        batcher = await REFUSALS[refusal]()
        await asyncio.sleep(60)
        log = lost_lines(caplog)
        await batcher.aclose(timeout=0)
        assert check_ledger(batcher).refused == {refusal.value: 1}
        if refusal is Admission.SAMPLED:  # on purpose, and no loss
            assert log == ""
            return
        closed = refusal is Admission.CLOSED
        assert ("after the batcher was closed" if closed else f"1 refused ({refusal.value})") in log

    run_virtually(main)


Told: TypeAlias = list[tuple[tuple[str, ...], str]]
DROPS: dict[DropReason, tuple[Step, dict[str, Any]]] = {
    DropReason.EVICTED: (HANG, {"max_queue_events": 2, "overflow": "drop_oldest", "max_in_flight": 1}),
    DropReason.REJECTED: (Response(status=400), {}),
    DropReason.TOO_LARGE: (Response(status=413), {}),
    DropReason.RETRIES_EXHAUSTED: (Response(status=503), {"max_retries": 0}),
    DropReason.SHUTDOWN: (Response(status=503), {"max_elapsed": 10_000, "max_retries": 10_000}),
    DropReason.INTERNAL: (OK, {}),
}


@pytest.mark.parametrize("reason", DropReason)
def test_every_reason_to_drop_is_counted_told_and_logged(
    reason: DropReason, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, settings = DROPS[reason]
    told: Told = []

    def fail(_engine: Engine, _now: float) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        batcher = make_batcher(
            FakeTransport(otherwise=step),
            max_batch_events=1,
            on_dropped=lambda ids, why: told.append((ids, why)),
            **settings,
        )
        await batcher.start()
        if reason is DropReason.INTERNAL:
            monkeypatch.setattr(Engine, "poll", fail)
        names = ["under way", "lost", "newest"] if reason is DropReason.EVICTED else ["lost"]
        for name in names:
            assert batcher.push({**EVENT, "event_id": name})
            await asyncio.sleep(1)
        if reason is DropReason.SHUTDOWN:
            await batcher.aclose(timeout=2)
        await asyncio.sleep(60)
        assert check_ledger(batcher).dropped == {reason.value: 1}
        assert told == [(("lost",), reason.value)]
        said = "1 dropped" if reason in {DropReason.SHUTDOWN, DropReason.INTERNAL} else f"1 {reason.value}"
        assert said in lost_lines(caplog)
        await batcher.aclose(timeout=0)

    run_virtually(main)


def test_what_may_have_arrived_is_counted_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, ...]] = []

    async def main() -> None:
        async with make_batcher(
            FakeTransport(RESET), on_ambiguous="drop", flush_interval=0, on_unconfirmed=told.append
        ) as batcher:
            assert batcher.push({**EVENT, "event_id": "unknown"})
            await asyncio.sleep(60)
            assert fates(batcher) == {"unconfirmed": 1}
            assert told == [("unknown",)]
            assert "1 unconfirmed" in lost_lines(caplog)

    run_virtually(main)


# The end of a process.

SCRIPT = """
import asyncio, signal
from honeyhive_batcher import Batcher

async def main():
    # at SIGTERM
    async with Batcher.from_env(flush_interval=3600) as batcher:
        for number in range(3):
            assert batcher.push({"model_name": "gpt-4o", "event_name": f"flushed {number}"})
        assert await batcher.flush()
        for number in range(3):
            assert batcher.push({"model_name": "gpt-4o", "event_name": f"held {number}"})
        print(batcher.statistics().held, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""
HANDLED = (
    "loop = asyncio.get_running_loop()\n"
    "    loop.add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)"
)
FLUSHED = ["flushed 0", "flushed 1", "flushed 2"]
HELD = ["held 0", "held 1", "held 2"]


def names(hive: Collector) -> list[str | None]:
    return [stored.event_name for stored in hive.events()]


def end_by(number: signal.Signals, source: str, hive: Collector) -> int:
    """Run a program until it holds three events, send it a signal, and return how it ended."""
    program = start_program(source, hive.url)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "3\n"
        assert names(hive) == FLUSHED
        program.send_signal(number)
        program.communicate(timeout=30)
    finally:
        program.kill()
    return program.returncode


def test_a_process_that_is_killed_loses_what_it_held_and_nothing_else() -> None:
    with collector_in_thread() as hive:
        assert end_by(signal.SIGKILL, SCRIPT, hive) == -signal.SIGKILL
        assert names(hive) == FLUSHED  # once each, and nothing of what was held


def test_a_script_that_gets_sigterm_loses_what_it_held() -> None:
    with collector_in_thread() as hive:
        assert end_by(signal.SIGTERM, SCRIPT, hive) == -signal.SIGTERM
        assert names(hive) == FLUSHED


@pytest.mark.parametrize(
    ("number", "source"),
    [
        (signal.SIGTERM, SCRIPT.replace("# at SIGTERM", HANDLED)),
        (signal.SIGINT, SCRIPT),
    ],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_a_script_that_cancels_itself_at_sigterm_or_gets_ctrl_c_delivers(
    number: signal.Signals, source: str
) -> None:
    with collector_in_thread() as hive:
        assert end_by(number, source, hive) != 0
        assert names(hive) == FLUSHED + HELD


UNCONFIGURED = """
import asyncio
from honeyhive_batcher import Batcher

async def main():
    async with Batcher.from_env(shutdown_timeout=0.1, max_queue_events=2) as batcher:
        for _ in range(5):
            batcher.push({"model_name": "gpt-4o"})

asyncio.run(main())
"""


def test_without_any_logging_set_up_losses_stand_on_stderr() -> None:
    done = run_program(UNCONFIGURED)  # nobody listens there
    assert done.returncode == 0
    assert "3 refused (queue_full)" in done.stderr
    assert "2 dropped" in done.stderr
