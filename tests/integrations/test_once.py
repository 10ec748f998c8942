"""Claims, and what is news."""

import asyncio
import contextvars
import gc
import threading
import weakref
from types import FrameType
from typing import Any

import pytest

from honeyhive_batcher.integrations import calls, failures, once
from honeyhive_batcher.integrations.calls import UnderWay, push_within
from honeyhive_batcher.integrations.failures import count_failure
from honeyhive_batcher.integrations.once import claim, is_claimed, is_new_error, is_news, open_claim
from honeyhive_batcher.session import current
from tests.integrations.kept import Kept

pytestmark = pytest.mark.anyio


def in_the_call(frame: FrameType) -> bool:
    return frame.f_code.co_name == "the_call"


def the_call(batcher: Kept) -> bool:
    return is_claimed(batcher)


def test_a_claim_is_for_one_batcher_and_for_as_long_as_it_lasts() -> None:
    mine, other = Kept(), Kept()
    assert not is_claimed(mine)
    with claim(mine):
        assert is_claimed(mine)
        assert not is_claimed(other)
        with claim(other):
            assert is_claimed(mine)
            assert is_claimed(other)
    assert not is_claimed(mine)


def test_a_claim_that_names_a_frame_is_for_what_is_below_it() -> None:
    batcher = Kept()
    claimed = open_claim(batcher, in_the_call)
    assert the_call(batcher)
    assert not is_claimed(batcher)
    claimed.close()
    assert not the_call(batcher)


async def test_a_claim_is_seen_in_tasks_and_closed_in_all_of_them() -> None:
    batcher = Kept()

    async def the_call() -> tuple[bool, bool]:
        before = is_claimed(batcher)
        await closed.wait()
        return before, is_claimed(batcher)

    closed = asyncio.Event()
    claimed = open_claim(batcher, in_the_call)
    task = asyncio.create_task(the_call())
    await asyncio.sleep(0)
    contextvars.Context().run(claimed.close)  # as a callback does, from a context of its own
    closed.set()
    assert await task == (True, False)


def test_closed_claims_do_not_pile_up() -> None:
    batcher = Kept()

    def claim_often() -> int:
        for _ in range(100):
            open_claim(batcher, in_the_call).close()
        open_claim(batcher, in_the_call)
        return len(once._claims.get())

    assert contextvars.Context().run(claim_often) == 1


def test_an_answer_is_news_once_for_each_batcher() -> None:
    mine, other = Kept(), Kept()
    assert is_news(mine, "a")
    assert not is_news(mine, "a")
    assert is_news(other, "a")
    assert is_news(mine, None)
    assert is_news(mine, "")


def test_answers_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "_REMEMBERED", 2)
    batcher = Kept()
    for answer in ("a", "b", "c"):
        assert is_news(batcher, answer)
    assert not is_news(batcher, "c")
    assert is_news(batcher, "a")


class ProviderError(Exception):
    pass


def test_an_error_is_new_once_also_as_the_cause_of_another() -> None:
    mine, other = Kept(), Kept()
    error = ProviderError("slow down")
    assert is_new_error(mine, error)
    assert not is_new_error(mine, error)
    assert is_new_error(other, error)
    wrapped, later = ProviderError("wrapped"), ProviderError("raised while the other was handled")
    wrapped.__cause__, later.__context__ = error, error
    assert not is_new_error(mine, wrapped)
    assert not is_new_error(mine, later)
    assert is_new_error(mine, ProviderError("slow down"))
    assert is_new_error(mine, None)


def test_errors_that_cannot_be_remembered_are_new() -> None:
    class StrangeError(Exception):
        __hash__ = None  # type: ignore[assignment]  # that is what is tried

    batcher = Kept()
    for error in (StrangeError(), ValueError()):
        assert is_new_error(batcher, error)
        assert is_new_error(batcher, error)


def test_an_error_is_not_kept_alive_and_a_circle_of_them_ends() -> None:
    batcher = Kept()
    error, cause = ProviderError("a"), ProviderError("b")
    error.__context__, cause.__context__ = cause, error
    assert is_new_error(batcher, error)
    assert not is_new_error(batcher, cause)
    gone = weakref.ref(error)
    error.__context__ = cause.__context__ = None
    del error, cause
    gc.collect()
    assert gone() is None


def test_a_call_is_kept_until_it_ends_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_MAX_UNDER_WAY", 2)
    kept = UnderWay[str]()
    assert kept.begin(1, "a") is None
    assert kept.begin(2, "b") is None
    assert kept.begin(3, "c") == "a"
    assert kept.get(2) == "b"
    assert kept.end(2) == "b"
    assert kept.end(2) is None
    assert kept.get(2) is None
    assert len(kept) == 1


def test_an_event_is_pushed_where_its_sessions_are_bound() -> None:
    batcher = Kept()
    before = current.get()
    sessions: Any = ("a session",)
    push_within(batcher, {"model": "good"}, sessions)
    assert batcher.bound == [sessions]
    assert current.get() is before


def test_a_failure_is_counted_each_time_and_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "_told", set())
    batcher = Kept()
    for error in (ValueError("no"), ValueError("no"), asyncio.CancelledError()):
        count_failure(batcher, "an adapter", error)
    assert batcher.events == [None] * 3
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "an adapter could not make an event" in record.message
    assert record.exc_info


def test_threads_agree_on_what_is_news() -> None:
    batcher = Kept()
    news: list[str] = []

    def work() -> None:
        news.extend(answer for answer in map(str, range(500)) if is_news(batcher, answer))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(news, key=int) == [str(number) for number in range(500)]
