"""Events pushed before the start: held, within the bounds, and told of once, but not when that is usual."""

import asyncio
import logging
import sys
import threading
from pathlib import Path

import pytest

from honeyhive_batcher import Admission, Batcher
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.runtime.unstarted import PATIENCE
from tests.fakes import FakeTransport

EVENT = {"model": "gpt-4o"}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def unstarted(**settings: int) -> tuple[Batcher, Clock]:
    clock = Clock()
    seams = Seams(clock=clock, transport=lambda _config: FakeTransport())
    return Batcher(api_key="hh_test", _seams=seams, **settings), clock  # type: ignore[arg-type]  # any settings


def close(batcher: Batcher) -> None:
    """Settle what is held, lest it is told of as forgotten."""
    asyncio.run(batcher.aclose())


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum("the batcher was not started" in record.message for record in caplog.records)


def test_they_are_held_within_the_bounds(caplog: pytest.LogCaptureFixture) -> None:
    batcher, _ = unstarted(max_queue_events=3)
    admissions = [batcher.push(EVENT) for _ in range(5)]
    assert admissions == [Admission.ACCEPTED] * 3 + [Admission.QUEUE_FULL] * 2
    assert warnings(caplog) == 0  # nothing runs yet
    close(batcher)


def test_a_start_that_does_not_come_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    batcher, clock = unstarted()
    batcher.push(EVENT)
    clock.now += PATIENCE - 0.1
    batcher.push(EVENT)
    assert warnings(caplog) == 0
    clock.now += 0.2
    for _ in range(3):
        batcher.push(EVENT)
    assert warnings(caplog) == 1
    close(batcher)


def test_a_second_task_that_pushes_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    batcher, _ = unstarted()

    async def serve() -> None:
        for _ in range(3):
            batcher.push(EVENT)
        assert warnings(caplog) == 0  # the start may come right now
        await asyncio.create_task(serve_another())

    async def serve_another() -> None:
        for _ in range(3):
            batcher.push(EVENT)

    asyncio.run(serve())
    assert warnings(caplog) == 1
    close(batcher)


def test_one_loop_after_another_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """As a TestClient does it outside of `with`."""
    batcher, _ = unstarted()

    async def answer() -> None:
        asyncio.get_running_loop().call_soon(batcher.push, EVENT)  # in no task
        await asyncio.sleep(0.01)

    asyncio.run(answer())
    assert warnings(caplog) == 0

    async def answer_another() -> None:
        batcher.push(EVENT)

    asyncio.run(answer_another())
    assert warnings(caplog) == 1
    close(batcher)


def test_a_second_thread_that_pushes_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    batcher, _ = unstarted()
    for warned in (0, 1, 1):
        thread = threading.Thread(target=batcher.push, args=(EVENT,))
        thread.start()
        thread.join()
        assert warnings(caplog) == warned
    close(batcher)


def test_a_module_may_push_while_a_server_imports_it(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pushes_when_imported.py").write_text(
        "from honeyhive_batcher import Batcher\n"
        "batcher = Batcher(api_key='hh_test', test_mode=True)\n"
        "batcher.push({'model': 'gpt-4o'})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    async def serve() -> None:  # as uvicorn does
        await asyncio.create_task(load())

    async def load() -> None:
        module = __import__("pushes_when_imported")
        async with module.batcher:
            assert await module.batcher.flush()

    asyncio.run(serve())
    assert warnings(caplog) == 0
    del sys.modules["pushes_when_imported"]


def test_after_the_start_nothing_is_told_and_nobody_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    batcher, _ = unstarted()

    async def serve() -> None:
        async with batcher:
            batcher.push(EVENT)
            assert not batcher._intake.is_unattended
            assert await batcher.flush()

    with caplog.at_level(logging.WARNING):
        asyncio.run(serve())
    assert caplog.records == []
