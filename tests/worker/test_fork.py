"""What begins anew in a forked child, and what nobody there may touch; for real forks see `host_programs`."""

import asyncio
import gc
import logging
import os
import threading
import weakref
from collections.abc import Iterator

import pytest

from honeyhive_batcher import Admission, Batcher
from honeyhive_batcher.runtime import fork
from honeyhive_batcher.runtime.fork import keep_for_ever
from tests.fakes import HANG, FakeTransport, fates, make_batcher

EVENT = {"model": "gpt-4o"}


class Thing:
    """Something that can be looked at weakly."""


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pretend that this process was forked, and that nobody told."""
    before = fork._process
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: before + 1)
        yield
    fork._process = before


def test_a_batcher_is_as_good_as_new_though_a_thread_of_the_parent_holds_its_lock() -> None:
    batcher = Batcher(test_mode=True)
    batcher.push(EVENT)
    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with intake._lock:
            is_held.set()
            is_over.wait()

    intake = batcher._intake
    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    batcher.after_fork()
    assert repr(batcher) == "<Batcher not started: 0 accepted, 0 delivered, 0 held, 0 requests in flight>"
    assert batcher.push(EVENT)
    asyncio.run(batcher.start())
    assert fates(batcher) == {"delivered": 1}
    asyncio.run(batcher.aclose())
    is_over.set()
    holder.join()
    assert intake.statistics().held == 1


def test_callbacks_go_on_in_the_child() -> None:
    told: list[int] = []
    batcher = Batcher(test_mode=True, on_delivered=lambda event_ids: told.append(len(event_ids)))
    batcher.after_fork()

    async def main() -> None:
        async with batcher:
            batcher.push(EVENT)

    asyncio.run(main())
    assert told == [1]


def test_the_end_of_a_session_is_told_by_the_process_that_pushed_into_it() -> None:
    batcher = Batcher(test_mode=True)
    with batcher.session() as session:
        batcher.push(EVENT)
        assert session.has_events
        batcher.after_fork()
        assert not session.has_events
        session.outputs = {"answer": 42}
    assert batcher.statistics().accepted == 0
    with batcher.session() as session:
        batcher.push(EVENT)
        session.outputs = {"answer": 42}
    assert batcher.statistics().accepted == 2
    asyncio.run(batcher.aclose())


@pytest.mark.anyio
async def test_a_worker_leaves_everything_alone_that_is_the_parents() -> None:
    transport = FakeTransport(HANG)
    batcher = make_batcher(transport, flush_interval=0)
    await batcher.start()
    batcher.push(EVENT)
    await asyncio.sleep(1)
    worker = batcher._lifecycle._worker
    assert worker is not None
    assert worker.task is not None
    worker.after_fork()
    batcher.after_fork()
    worker.drain(0)  # whatever still calls it
    assert batcher.push(EVENT)
    worker._alarm.ring()
    await worker.task
    assert (transport.cancelled, transport.closed) == (0, 0)
    assert fates(batcher) == {"held": 1}
    await batcher.aclose()
    for task in asyncio.all_tasks():
        if task.get_name() == "honeyhive_batcher.send":
            task.cancel()


def test_what_is_kept_is_never_cleaned_up() -> None:
    thing, other = Thing(), Thing()
    kept, gone = weakref.ref(thing), weakref.ref(other)
    keep_for_ever(thing)
    del thing, other
    gc.collect()
    assert kept() is not None
    assert gone() is None


def test_a_batcher_that_is_gone_is_not_called_any_more() -> None:
    def living() -> int:
        gc.collect()
        return len(fork._living)

    before = living()
    batchers = [Batcher(test_mode=True) for _ in range(10)]
    assert living() == before + 10
    batchers.clear()
    assert living() == before


@pytest.mark.usefixtures("process")
def test_a_fork_that_python_was_not_told_of_is_noticed_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    batcher = Batcher(test_mode=True)
    batcher.push(EVENT)

    async def main() -> None:
        async with batcher:
            batcher.push(EVENT)
            assert await batcher.flush()

    asyncio.run(main())
    assert fates(batcher) == {"delivered": 1}
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "1 events" in line
    assert "left to the parent" in line


@pytest.mark.usefixtures("process")
def test_a_fork_that_python_was_not_told_of_is_noticed_by_a_flush_and_by_closing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flushed, closed = Batcher(test_mode=True), Batcher(test_mode=True)
    assert asyncio.run(flushed.flush()).held == 0
    asyncio.run(closed.aclose())
    assert closed.push(EVENT) is Admission.CLOSED
    assert "forked" not in caplog.text
