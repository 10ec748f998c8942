"""The verbs without await: on a thread that begins by itself, ends, dies, is forked, and is never closed."""

import asyncio
import concurrent.futures
import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from honeyhive_batcher import Admission, BatcherError, BlockingBatcher, ClosedError, EncodeError
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.runtime.thread import LoopThread
from honeyhive_batcher.testing import Collector, Faults, collector_in_thread
from tests.fakes import HANG, REFUSED, FakeTransport
from tests.programs import run_program

EVENT = {"model_name": "gpt-4o"}


@pytest.fixture
def hive() -> Iterator[Collector]:
    with collector_in_thread() as collector:
        yield collector


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    until(lambda: not threads())


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "honeyhive_batcher"]


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def over(*transports: FakeTransport, **settings: Any) -> BlockingBatcher:
    """Make one with a transport for each of its runs."""
    waiting = list(transports)
    seams = Seams(transport=lambda _config: waiting.pop(0))
    return BlockingBatcher(api_key="hh_test", _seams=seams, **settings)


def test_it_has_the_verbs(hive: Collector) -> None:
    batcher = BlockingBatcher(**hive.settings())
    assert not threads()
    assert batcher.push(EVENT) is Admission.ACCEPTED
    assert len(threads()) == 1
    assert batcher.put(EVENT) is Admission.ACCEPTED
    with batcher.session(session_name="Ask") as session:
        batcher.push(EVENT)
        batcher.put(EVENT)
    result = batcher.flush(timeout=30)
    assert (result.ok, result.delivered) == (True, 4)
    assert batcher.statistics().delivered == 4
    assert batcher.config.endpoint.base_url == hive.url
    assert repr(batcher).startswith("<BlockingBatcher open: 4 accepted, 4 delivered")
    batcher.close()
    assert not threads()
    assert [stored.session_id for stored in hive.events()].count(session.session_id) == 2
    assert repr(batcher).startswith("<BlockingBatcher closed")


def test_it_is_made_of_the_environment(hive: Collector) -> None:
    environ = {"HH_API_URL": hive.url, "HH_API_KEY": "hh_test"}
    with BlockingBatcher.from_env(
        environ, project="p", before_send=lambda event: {**event, "x": 1}
    ) as batcher:
        batcher.push(EVENT)
    (stored,) = hive.events()
    assert (stored.event["project"], stored.event["x"]) == ("p", 1)


def test_a_closed_one_refuses_and_may_be_started_again(caplog: pytest.LogCaptureFixture) -> None:
    first, second = FakeTransport(), FakeTransport()
    batcher = over(first, second)
    with batcher:
        batcher.push(EVENT)
    batcher.close()
    assert batcher.push(EVENT) is Admission.CLOSED
    with pytest.raises(ClosedError):
        batcher.put(EVENT)
    assert batcher.flush()
    assert not threads()
    with caplog.at_level(logging.WARNING):
        assert batcher.start().start() is batcher
    batcher.push(EVENT)
    batcher.close()
    assert (len(first.sent), len(second.sent)) == (1, 1)


def test_one_that_never_ran_is_closed_without_a_thread() -> None:
    batcher = over()
    assert batcher.flush()
    batcher.close()
    assert not batcher.push(EVENT)
    with pytest.raises(EncodeError):
        over().put("no event")


def test_put_waits_for_room() -> None:
    transport = FakeTransport(latency=0.2)
    batcher = over(transport, max_queue_events=1)
    for _ in range(3):
        assert batcher.put(EVENT, timeout=30) is Admission.ACCEPTED
    batcher.close()
    assert len(transport.sent) == 3


def test_put_without_room_times_out() -> None:
    batcher = over(FakeTransport(otherwise=REFUSED), max_queue_events=1)
    batcher.push(EVENT)
    with pytest.raises(TimeoutError):
        batcher.put(EVENT, timeout=0.05)
    assert batcher.statistics().refused == {Admission.QUEUE_FULL.value: 1}
    batcher.close(0)


def test_put_whose_thread_cannot_begin_times_out(caplog: pytest.LogCaptureFixture) -> None:
    batcher = over(max_queue_events=1)
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("no more threads")):
        assert batcher.push(EVENT)
        assert batcher.push(EVENT) is Admission.QUEUE_FULL
        with pytest.raises(TimeoutError):
            batcher.put(EVENT, timeout=0.05)
        assert not batcher.flush(timeout=1)
        with pytest.raises(BatcherError, match="no thread"):
            batcher.start()
        batcher.close()
    assert batcher.statistics().dropped == {"shutdown": 1}
    assert [record.message for record in caplog.records if "thread" in record.message] == [
        "the batcher's thread could not begin (RuntimeError)"
    ]


def test_a_thread_that_fails_to_begin_is_told_of_and_tried_again_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    batcher = over()  # without a transport its run cannot begin
    assert batcher.push(EVENT)
    until(lambda: batcher._background.thread is None or not batcher._background.thread.is_running)
    for _ in range(3):
        assert batcher.push(EVENT)
    assert [record.message for record in caplog.records if "thread" in record.message] == [
        "the batcher's thread could not begin (IndexError)"
    ]
    with pytest.raises(BatcherError, match="could not begin"):
        batcher.start()
    assert batcher.flush(timeout=1).held == 4
    batcher.close()
    assert batcher.statistics().dropped == {"shutdown": 4}


def test_a_flush_says_after_its_time_what_is_left() -> None:
    batcher = over(FakeTransport(HANG), FakeTransport())
    batcher.push(EVENT)
    began = time.monotonic()
    result = batcher.flush(timeout=0.2)
    assert time.monotonic() - began >= 0.2
    assert (result.ok, result.held) == (False, 1)
    batcher.close(0)


def test_a_callback_that_holds_the_thread_up_does_not_hold_a_flush_up() -> None:
    goes_on = threading.Event()
    batcher = over(FakeTransport(), on_delivered=lambda _ids: goes_on.wait(30))
    batcher.push(EVENT)
    with mock.patch("honeyhive_batcher.blocking.LAST_WORDS", 0.1):
        until(lambda: batcher.flush(timeout=0.1).held == 0)
    goes_on.set()
    batcher.close()


def test_a_callback_may_push_and_cannot_wait_for_itself() -> None:
    told = list[str]()

    def on_delivered(_ids: tuple[str, ...]) -> None:
        for wait in (batcher.flush, batcher.close):
            try:
                wait()
            except BatcherError as error:
                told.append(str(error))
        batcher.start()
        if len(told) == 2:
            batcher.push(EVENT)

    batcher = over(FakeTransport(), on_delivered=on_delivered)
    batcher.push(EVENT)
    until(lambda: batcher.statistics().delivered == 2 and len(told) == 4)
    batcher.close()
    assert set(told) == {"a callback of the batcher cannot wait for the batcher"}


def test_a_callback_cannot_wait_for_room() -> None:
    told = list[str]()

    def on_delivered(_ids: tuple[str, ...]) -> None:
        try:
            while not told:
                batcher.put(EVENT)
        except BatcherError as error:
            told.append(str(error))

    batcher = over(FakeTransport(), on_delivered=on_delivered, max_queue_events=1)
    batcher.push(EVENT)
    until(lambda: told)
    batcher.close()
    now = batcher.statistics()
    assert now.refused == {Admission.QUEUE_FULL.value: 1}
    assert now.accepted == now.delivered + sum(now.dropped.values())


def test_whoever_waits_for_room_that_a_dying_thread_would_make_is_told() -> None:
    batcher = over(FakeTransport(HANG), max_queue_events=1, shutdown_timeout=0.0, on_ambiguous="drop")
    batcher.push(EVENT)
    thread = batcher._background.thread
    assert thread is not None
    assert thread.is_up(30)
    end = threading.Timer(0.1, thread.stop_soon)
    end.start()
    with pytest.raises((TimeoutError, ClosedError)):
        batcher.put(EVENT)
    end.join()
    batcher.close()


def test_what_a_thread_is_asked_for_too_late_to_begin_leaves_no_complaint() -> None:
    thread = LoopThread(lambda: asyncio.sleep(0))
    assert thread.is_up(30)
    begun = threading.Event()

    async def late() -> None:
        begun.set()

    loop = thread._loop
    assert loop is not None
    close, futures = loop.close, list[concurrent.futures.Future[None]]()

    def ask_and_close() -> None:
        futures.append(thread.call_soon(late))  # after the loop's last turn, before it is closed
        close()

    with mock.patch.object(loop, "close", ask_and_close):
        thread.stop_soon()
        thread.join()
    assert thread.has_ended
    assert not begun.is_set()
    with pytest.raises(concurrent.futures.CancelledError):
        thread.result(futures[0])
    gc.collect()  # an unawaited coroutine would complain here, and fail the test


def test_it_works_inside_of_a_running_event_loop() -> None:
    batcher = over(FakeTransport())

    async def main() -> None:
        batcher.push(EVENT)
        assert batcher.flush(timeout=30)
        batcher.close()

    asyncio.run(main())


def test_threads_that_start_it_at_once_start_one() -> None:
    transport = FakeTransport()
    batcher = over(transport)
    gate = threading.Barrier(8)

    def work(number: int) -> None:
        gate.wait()
        if number % 2:
            batcher.start()
        assert batcher.push(EVENT)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(threads()) == 1
    batcher.close()
    assert sum(transport.sizes) == 8


def test_a_push_in_the_midst_of_a_start_begins_no_second_thread() -> None:
    transport = FakeTransport()
    batcher = over(transport)
    begin = LoopThread.__init__

    def interrupted(self: LoopThread, *arguments: Any) -> None:
        assert batcher.push(EVENT)  # as a signal handler would
        begin(self, *arguments)

    with mock.patch.object(LoopThread, "__init__", interrupted):
        batcher.start()
    batcher.close()
    assert transport.opened == 1
    assert len(transport.sent) == 1


def test_a_thread_that_died_is_followed_by_another() -> None:
    first, second = FakeTransport(HANG), FakeTransport()
    batcher = over(first, second, on_ambiguous="retry", shutdown_timeout=0.0)
    batcher.start()
    thread = batcher._background.thread
    assert thread is not None
    thread.stop_soon()  # the loop ends, and nobody has closed the batcher
    until(lambda: thread.has_ended)
    assert not thread.is_running
    with pytest.raises(concurrent.futures.CancelledError):
        thread.call(asyncio.sleep, 0)
    thread.stop_soon()
    assert batcher._batcher.push(EVENT) is Admission.CLOSED  # it gave up what it held
    batcher.start()
    batcher.push(EVENT)
    assert batcher.flush(timeout=30)
    batcher.close()
    assert len(second.sent) == 1


def test_whoever_waits_for_a_thread_that_dies_is_told() -> None:
    thread = LoopThread(lambda: asyncio.sleep(0))
    assert thread.is_up(30)
    future = thread.call_soon(asyncio.sleep, 60)
    thread.stop_soon()
    with pytest.raises(concurrent.futures.CancelledError):
        thread.result(future)
    never = concurrent.futures.Future[None]()  # what nobody will ever set
    with pytest.raises(concurrent.futures.CancelledError):
        thread.result(never)
    with pytest.raises(concurrent.futures.TimeoutError):
        thread.result(never, timeout=0)


def test_a_loop_that_is_closed_under_a_call_is_noticed() -> None:
    thread = LoopThread(lambda: asyncio.sleep(0))
    assert thread.is_up(30)
    loop = asyncio.new_event_loop()
    loop.close()
    mine, thread._loop = thread._loop, loop
    with pytest.raises(concurrent.futures.CancelledError):
        thread.call_soon(asyncio.sleep, 0)
    thread.stop_soon()
    thread._loop = mine
    thread.stop_soon()
    thread.join()


def test_names_are_resolved_when_no_new_thread_is_to_be_had() -> None:
    def executor() -> Any:
        async def main() -> tuple[int, str]:
            loop = asyncio.get_running_loop()
            with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("at shutdown")):
                found = await loop.run_in_executor(None, lambda: 7)
                try:
                    await loop.run_in_executor(None, int, "no number")
                except ValueError as error:
                    return found, str(error)[:7]
            raise AssertionError

        return main()

    thread = LoopThread(lambda: asyncio.sleep(0))
    assert thread.is_up(30)
    assert thread.call(executor) == (7, "invalid")
    thread.stop_soon()
    thread.join()


def test_a_ctrl_c_ends_the_wait_and_not_the_batcher() -> None:
    transport = FakeTransport(HANG)
    batcher = over(transport, on_ambiguous="drop")
    batcher.push(EVENT)
    ctrl_c = threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,))
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        batcher.flush()
    ctrl_c.join()
    ctrl_c = threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,))
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        batcher.close(60)
    ctrl_c.join()
    assert batcher.push(EVENT) is Admission.CLOSED
    batcher.close(0)
    assert batcher.statistics().unconfirmed == 1


def test_one_that_is_forgotten_delivers_and_ends() -> None:
    transport = FakeTransport()
    batcher = over(transport)
    batcher.push(EVENT)
    assert batcher._background.thread is not None
    batcher._background.thread.is_up(30)
    del batcher
    gc.collect()
    until(lambda: not threads())
    assert len(transport.sent) == 1


# Invocations.


def test_invocations_deliver_and_leave_no_thread() -> None:
    transports = [FakeTransport(), FakeTransport()]
    batcher = over(*transports)
    for number in range(2):
        with batcher.invocation():
            batcher.push(EVENT)
        assert not threads()
        assert len(transports[number].sent) == 1
    with batcher.invocation():
        pass
    batcher.close()


def test_what_an_invocation_could_not_send_waits_for_the_next() -> None:
    transports = [FakeTransport(otherwise=REFUSED), FakeTransport()]
    batcher = over(*transports)
    with batcher.invocation(timeout=0.1):
        batcher.push(EVENT)
    assert batcher.statistics().held == 1
    assert not threads()
    with batcher.invocation():
        pass
    assert batcher.statistics().delivered == 1
    batcher.close()


def test_one_that_was_started_outlives_an_invocation() -> None:
    batcher = over(FakeTransport()).start()

    def function() -> None:
        with batcher.invocation(), batcher.invocation():
            batcher.push(EVENT)
            raise ValueError("the function's own")

    with pytest.raises(ValueError, match="own"):
        function()
    assert batcher.statistics().delivered == 1
    assert len(threads()) == 1
    batcher.close()


# Processes.


def test_a_forked_child_begins_anew_and_the_parent_sends_its_own(hive: Collector) -> None:
    program = """
import os, warnings
from honeyhive_batcher import BlockingBatcher
warnings.simplefilter("ignore", DeprecationWarning)  # CPython 3.12 and later: of a fork beside a thread
batcher = BlockingBatcher.from_env(flush_interval=60)
batcher.push({"model_name": "parent"})
children = []
for number in range(2):
    child = os.fork()
    if not child:
        batcher.push({"model_name": f"child {number}"})
        batcher.close()
        assert batcher.statistics().delivered == 1, batcher
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
assert batcher.flush(timeout=30).delivered == 1
"""
    done = run_program(program, hive.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(stored.event["model_name"] for stored in hive.events()) == ["child 0", "child 1", "parent"]


def test_a_forked_child_leaves_the_thread_of_its_parent_alone() -> None:
    first, second = FakeTransport(), FakeTransport()
    batcher = over(first, second).start()
    inherited = batcher._background.thread
    batcher._background.settle()
    batcher._batcher.after_fork()
    batcher._background.after_fork()
    batcher.push(EVENT)
    assert batcher._background.thread is not inherited
    batcher.close()
    assert (len(first.sent), len(second.sent)) == (0, 1)
    assert inherited is not None
    assert inherited.is_running
    inherited.stop_soon()
    inherited.join()
    batcher._background.after_fork()  # without a thread there is nothing to leave alone


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("pause", ["", "import time; time.sleep(0.5)"])
def test_a_program_that_never_closes_delivers_at_its_end(host: str, pause: str, hive: Collector) -> None:
    program = f"""
from honeyhive_batcher import BlockingBatcher
batcher = BlockingBatcher.from_env(flush_interval=60)
batcher.push({{"model_name": "last"}})
{pause}
"""
    done = run_program(program, hive.url.replace("127.0.0.1", host))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [stored.event["model_name"] for stored in hive.events()] == ["last"]


def test_a_program_whose_server_is_slow_ends_in_time_and_says_what_it_lost() -> None:
    program = """
from honeyhive_batcher import BlockingBatcher
batcher = BlockingBatcher.from_env(shutdown_timeout=0.5, on_ambiguous="drop")
batcher.push({"model_name": "last"})
"""
    with collector_in_thread(faults=Faults(latency=60.0)) as slow:
        done = run_program(program, slow.url)
    assert done.returncode == 0
    assert "of the 1 events still held 0 were delivered" in done.stderr


def test_at_the_end_of_the_program_a_thread_without_work_keeps_nobody_waiting() -> None:
    batcher = over(FakeTransport(), FakeTransport())
    assert batcher._background.hasten() == 0.0
    assert not batcher._background.is_closing
    batcher.start()
    assert batcher._background.hasten() == 0.0
    batcher.push(EVENT)
    assert batcher._background.hasten() > 0.0
    until(lambda: not batcher._background.is_closing)
    batcher._background.give_up()
    assert batcher.statistics().delivered == 1
    batcher.close()


def test_a_thread_that_does_not_get_up_is_not_waited_for_at_the_end() -> None:
    goes_on = threading.Event()

    class Stuck(FakeTransport):
        async def open(self) -> None:
            goes_on.wait(30)

    batcher = over(Stuck(), shutdown_timeout=0.05)
    batcher.push(EVENT)
    assert batcher._background.hasten() == 0.0
    goes_on.set()
    batcher.close()
    assert not threads()


def test_the_one_that_cannot_be_made_can_be_shown_and_forgotten() -> None:
    assert "not made" in repr(BlockingBatcher.__new__(BlockingBatcher))
