"""Fork and workers: what users of other exporters complained about, and what must not happen here."""

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from honeyhive_batcher import Admission, Batcher
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.testing import Collector, collector_in_thread
from tests.fakes import HANG, FakeTransport, check_ledger, fates
from tests.programs import run_program

CHILD = """
import asyncio, os, signal, threading
from honeyhive_batcher import Batcher

batcher = Batcher.from_env(flush_interval=3600)

def push(name):
    assert batcher.push({"model_name": "gpt-4o", "event_name": name})

async def log(name):
    async with batcher:
        push(name)

def fork(name):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(10)  # one that is stuck is killed
            asyncio.run(log(name))
            status = 0
        finally:
            os._exit(status)
    return child

def wait(child):
    assert os.waitpid(child, 0)[1] == 0
"""

WHILE_THE_LOCK_IS_HELD = """
held, forked = threading.Event(), threading.Event()

def hold():
    with batcher._intake._lock:
        held.set()
        forked.wait()

push("before")
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = fork("child")
forked.set()
thread.join()
wait(child)
asyncio.run(log("after"))
"""

WHILE_THREADS_PUSH = """
async def main():
    async with batcher:
        threads = [threading.Thread(target=produce, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        children = [fork(f"child {number}") for number in range(6)]
        enough.set()
        for thread in threads:
            thread.join()
        for child in children:
            await asyncio.to_thread(wait, child)

def produce(number):
    for count in range(1000):
        if enough.is_set():
            break
        push(f"thread {number}: {count}")
    made.append(count)

enough, made = threading.Event(), []
asyncio.run(main())
assert batcher.statistics().delivered == batcher.statistics().accepted
print(batcher.statistics().accepted)
"""


def names(hive: Collector) -> list[str]:
    return sorted(str(stored.event_name) for stored in hive.events())


def test_a_fork_while_another_thread_holds_the_lock_locks_nobody_out() -> None:
    """A lock that was held during a fork, or leaked into the child, locked the child up for ever
    (getsentry/sentry-python#6149, getsentry/sentry-python#6148).
    """
    with collector_in_thread() as hive:
        done = run_program(CHILD + WHILE_THE_LOCK_IS_HELD, hive.url)
        assert done.returncode == 0, done.stderr
        assert names(hive) == ["after", "before", "child"]


def test_forks_while_threads_push_lock_nobody_out_and_double_nothing() -> None:
    """The same, wherever the threads happen to be (getsentry/sentry-python#6149)."""
    with collector_in_thread() as hive:
        done = run_program(CHILD + WHILE_THREADS_PUSH, hive.url)
        assert done.returncode == 0, done.stderr
        stored = Counter(names(hive))
        assert set(stored.values()) == {1}
        children = {f"child {number}" for number in range(6)}
        assert children <= stored.keys()
        assert len(stored) == int(done.stdout) + len(children)


PRELOADED = {
    "never ran": "push('preloaded')\n",
    "ran before": "asyncio.run(log('preloaded'))\n",
}
WORKERS = """
children = [fork("worker 1"), fork("worker 2")]
for child in children:
    wait(child)
asyncio.run(log("parent"))
"""


@pytest.mark.parametrize("preload", PRELOADED.values(), ids=PRELOADED)
def test_workers_forked_from_a_preloaded_application_send_their_events(preload: str) -> None:
    """Under gunicorn's `preload_app` events piled up in children that had no worker
    (PostHog/posthog-python#290, langchain-ai/langsmith-sdk#457).
    """
    with collector_in_thread() as hive:
        done = run_program(CHILD + preload + WORKERS, hive.url)
        assert done.returncode == 0, done.stderr
        assert names(hive) == ["parent", "preloaded", "worker 1", "worker 2"]


def in_a_thread(target: Callable[[], None]) -> bool:
    """Return whether `target` ends; one that hangs is left behind."""
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(20)
    return not thread.is_alive()


def test_a_producer_waits_for_nobody() -> None:
    """A producer that waited on a condition variable and the flush that should have notified it waited for
    each other (open-telemetry/opentelemetry-python#3886).
    """
    batcher = Batcher(
        api_key="hh_test",
        max_queue_events=100,
        max_batch_events=10,
        shutdown_timeout=0,
        _seams=Seams(transport=lambda _config: FakeTransport(otherwise=HANG)),
    )
    answers: list[Admission] = []

    def produce() -> None:
        answers.extend(batcher.push({"model": "gpt-4o"}) for _ in range(150))

    async def main() -> None:
        await batcher.start()
        flush = asyncio.create_task(batcher.flush())
        await asyncio.sleep(0)
        assert in_a_thread(produce)  # the loop does not turn meanwhile, and a flush is under way
        await flush
        await batcher.aclose()

    asyncio.run(main())
    assert Counter(answers) == {Admission.ACCEPTED: 100, Admission.QUEUE_FULL: 50}
    assert check_ledger(batcher).held == 0


def test_a_producer_that_is_interrupted_anywhere_by_another_waits_for_nobody() -> None:
    """The same, when the other runs in the same thread, as greenlets and signal handlers do
    (open-telemetry/opentelemetry-python#3886).
    """
    batcher = Batcher(api_key="hh_test", _seams=Seams(transport=lambda _config: FakeTransport()))
    interruptions = 0

    def interrupt(_frame: Any, _kind: str, _value: Any) -> None:
        nonlocal interruptions
        sys.setprofile(None)
        batcher.push({"model": "gpt-4o"})
        batcher.statistics()
        interruptions += 1
        sys.setprofile(interrupt)

    def produce() -> None:
        sys.setprofile(interrupt)
        batcher.push({"model": "gpt-4o"})
        sys.setprofile(None)

    async def main() -> None:
        async with batcher:
            pass

    assert in_a_thread(produce)
    assert interruptions > 20
    asyncio.run(main())
    assert fates(batcher) == {"delivered": interruptions + 1}
