"""What is news, calls under way, and failures."""

import asyncio
import gc
import threading
import time
import weakref
from typing import Any

import pytest

from honeyhive_batcher.integrations import calls, failures, once
from honeyhive_batcher.integrations.calls import UnderWay, push_within
from honeyhive_batcher.integrations.failures import count_failure
from honeyhive_batcher.integrations.once import is_new_error, is_news
from honeyhive_batcher.session import current
from tests.integrations.kept import Kept

pytestmark = pytest.mark.anyio


def test_an_answer_is_news_once_for_each_batcher() -> None:
    mine, other = Kept(), Kept()
    assert is_news(mine, "a", "client")
    assert not is_news(mine, "a", "span")
    assert not is_news(mine, "a", "another span")
    assert is_news(other, "a", "span")
    assert is_news(mine, None, "span")
    assert is_news(mine, "", "span")


def test_answers_with_the_same_id_are_told_apart_by_who_names_them_again() -> None:
    batcher = Kept()
    assert [is_news(batcher, "a", teller) for teller in ("client", "client", "span", "span")] == [
        True,
        True,
        False,
        False,
    ]
    assert is_news(batcher, "a", "span")
    assert not is_news(batcher, "a", "client")


def test_one_that_tells_twice_of_the_same_call_is_heard_once() -> None:
    batcher = Kept()
    assert is_news(batcher, "a", "litellm", "call 1")
    assert not is_news(batcher, "a", "litellm", "call 1")
    assert is_news(batcher, "a", "litellm", "call 2")
    assert not is_news(batcher, "a", "client")


def test_answers_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "_REMEMBERED", 2)
    batcher = Kept()
    for answer in ("a", "b", "a", "c"):
        assert is_news(batcher, answer, "client")
    assert not is_news(batcher, "c", "span")
    assert not is_news(batcher, "a", "span")
    assert is_news(batcher, "b", "span")


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


def test_an_error_that_was_told_before_a_call_began_is_no_error_of_it() -> None:
    batcher = Kept()
    earlier, error = ProviderError("slow down"), ProviderError("raised while the other was handled")
    error.__context__ = earlier
    assert is_new_error(batcher, earlier, time.perf_counter())
    began = time.perf_counter()
    assert is_new_error(batcher, error, began)
    assert not is_new_error(batcher, error, began)


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
    for error in (ValueError("What is in a hive?"), ValueError("no"), asyncio.CancelledError()):
        count_failure(batcher, "an adapter", error)
    assert batcher.events == [None] * 3
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "an adapter could not make an event" in record.message
    assert record.exc_info
    assert "ValueError" in caplog.text
    assert "hive?" not in caplog.text, "it may quote a message"


def test_threads_agree_on_what_is_news() -> None:
    batcher = Kept()
    news: list[str] = []

    def work(teller: int) -> None:
        news.extend(answer for answer in map(str, range(500)) if is_news(batcher, answer, teller))

    threads = [threading.Thread(target=work, args=(teller,)) for teller in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(news, key=int) == [str(number) for number in range(500)]
