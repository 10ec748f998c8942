"""What adapters hold, in threads, in what is cleaned up, and in forked children."""

import os
import threading
import time

import pytest

from honeyhive_batcher.integrations.calls import UnderWay
from honeyhive_batcher.integrations.locks import Lock
from honeyhive_batcher.integrations.once import is_news
from tests.integrations.kept import Kept


def in_a_child(test: str) -> int:
    """Return how a forked child ended."""
    pid = os.fork()
    if not pid:  # pragma: no cover - the child
        try:
            exec(test, {"lock": lock, "calls": calls, "is_news": is_news, "Kept": Kept})
        except BaseException:
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -1


lock = Lock()
calls = UnderWay[str]()


def test_its_thread_may_take_it_again() -> None:
    with lock, lock:
        pass
    taken: list[bool] = []

    def take() -> None:
        with lock:
            taken.append(True)

    thread = threading.Thread(target=take)
    with lock:
        thread.start()
        assert not taken
    thread.join()
    assert taken


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_finds_it_free_and_nothing_under_way() -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock, calls._lock:
            held.set()
            release.wait()

    calls.begin(1, "of the parent")
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        status = in_a_child(
            "with lock: calls.begin(2, 'a')\nassert len(calls) == 1\nassert is_news(Kept(), 'a')"
        )
    finally:
        release.set()
        thread.join()
    assert status == 0
    assert calls.end(1) == "of the parent"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_while_it_is_held_by_the_same_thread() -> None:
    with lock:
        status = in_a_child("with lock: pass")
    assert status == 0


def test_a_lock_that_was_replaced_meanwhile_is_left() -> None:
    with lock:
        lock.after_fork()
    with lock:
        pass
