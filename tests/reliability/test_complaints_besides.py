"""What else users of other exporters complained about, and what must not happen here."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable

import pytest

from honeyhive_batcher import Admission, Batcher, ClosedError
from honeyhive_batcher.core.model import Response
from honeyhive_batcher.testing import collector_in_thread
from tests.fakes import OK, REFUSED, RESET, FakeTransport, Step, check_ledger, fates, make_batcher
from tests.programs import run_program
from tests.virtual_time import VirtualTimeLoop, now, run_virtually, virtual_loop

EVENT = {"model": "gpt-4o"}


class Pushing(logging.Handler):
    """A handler of an application that sends every line of every logger through the batcher."""

    def __init__(self, push: Callable[[object], object]) -> None:
        super().__init__(logging.DEBUG)
        self.push = push
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.push({"event_name": record.name, "inputs": record.getMessage()})


@pytest.mark.parametrize(
    "server",
    [REFUSED, RESET, Response(status=503), Response(status=400), Response(status=401)],
    ids=["refuses", "resets", "503", "400", "401"],
)
@pytest.mark.parametrize("room", [1, 10_000], ids=["no room", "room"])
def test_a_log_that_is_sent_through_the_batcher_does_not_feed_itself(server: Step, room: int) -> None:
    """A handler that exported log lines was fed by the lines about its own failures, up to the recursion
    limit or for ever (open-telemetry/opentelemetry-python#4688, open-telemetry/opentelemetry-python#4585,
    open-telemetry/opentelemetry-python#2701, open-telemetry/opentelemetry-python#4323).
    """
    root = logging.getLogger()
    level = root.level

    async def main() -> None:
        transport = FakeTransport(otherwise=server)
        batcher = make_batcher(transport, max_queue_events=room)
        handler = Pushing(batcher.push)
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            async with batcher:
                for _ in range(60):
                    batcher.push(EVENT)
                    await asyncio.sleep(60)
            batcher.push(EVENT)
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
        assert handler.lines
        assert len(handler.lines) <= 3 * 60 + 10  # three lines a minute, in an hour
        assert check_ledger(batcher).offered == 61 + len(handler.lines)
        assert len(transport.sent) <= 1000

    run_virtually(main)


LATE = """
import asyncio, atexit, threading
from honeyhive_batcher import Batcher

batcher = Batcher.from_env()

def push(when):
    print(when, bool(batcher.push({"model_name": "late"})))

class Late:
    def __del__(self, batcher=batcher, print=print):
        print("in a finaliser", bool(batcher.push({"model_name": "late"})))

late = [Late()]
late.append(late)

def outlive():
    threading.main_thread().join()
    push("in a thread")

async def main():
    await batcher.start()
    assert batcher.push({"model_name": "gpt-4o"})
    CLOSE

asyncio.run(main())
atexit.register(push, "at exit")
threading.Thread(target=outlive).start()
"""


@pytest.mark.parametrize("close", ["await batcher.aclose()", "pass"], ids=["closed", "not closed"])
def test_a_push_while_the_interpreter_ends_is_refused_and_nothing_else(close: str) -> None:
    """An export at the end of the interpreter raised "can't create new thread at interpreter shutdown"
    (open-telemetry/opentelemetry-python#4752).
    """
    with collector_in_thread() as hive:
        done = run_program(LATE.replace("CLOSE", close), hive.url)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["in a thread False", "at exit False", "in a finaliser False"]
        assert "Traceback" not in done.stderr
        assert "Error" not in done.stderr
        assert [stored.model for stored in hive.events()] == ["gpt-4o"]


def test_a_process_that_is_frozen_between_invocations_holds_nothing_then_and_goes_on_afterwards() -> None:
    """Serverless functions were frozen with their events still in the queue (langfuse/langfuse#3292,
    BerriAI/litellm#9337, langchain-ai/langsmith-sdk#611, wandb/weave#4965).
    """
    transport = FakeTransport(OK, Response(status=503), latency=0.1)

    async def invocation(batcher: Batcher) -> bool:
        await batcher.start()
        assert batcher.push(EVENT)
        return bool(await batcher.flush(timeout=0.3))

    async def make() -> Batcher:
        return make_batcher(transport, flush_interval=3600, backoff_base=10)

    def freeze() -> None:
        loop._now += 7200.0

    loop = VirtualTimeLoop()
    try:
        batcher = loop.run_until_complete(make())
        assert loop.run_until_complete(invocation(batcher))
        assert (check_ledger(batcher).held, check_ledger(batcher).in_flight) == (0, 0)
        freeze()
        assert not loop.run_until_complete(invocation(batcher))  # it is told, and may wait longer
        freeze()
        assert loop.run_until_complete(invocation(batcher))
        assert fates(batcher) == {"delivered": 3}
        loop.run_until_complete(batcher.aclose())
    finally:
        loop.close()


CLOSED_LOOP = """
import asyncio, atexit
from honeyhive_batcher import Batcher
batcher = Batcher.from_env(flush_interval=3600, max_batch_events=2)

async def begin():
    await batcher.start()
    assert batcher.push({"model_name": "gpt-4o", "event_name": "first"})

async def finish():
    async with batcher:
        assert (await batcher.flush()).delivered == 2

def at_exit():
    assert batcher.push({"model_name": "gpt-4o", "event_name": "last"})
    asyncio.run(finish())

loop = asyncio.new_event_loop()
loop.set_exception_handler(lambda *_: None)
loop.run_until_complete(begin())
loop.close()
atexit.register(at_exit)
"""


def test_a_loop_that_is_closed_at_exit_is_no_error_and_no_loss() -> None:
    """Draining at exit raised "Event loop is closed" and lost what was queued (BerriAI/litellm#13970)."""
    with collector_in_thread() as hive:
        done = run_program(CLOSED_LOOP, hive.url)
        assert done.returncode == 0
        assert "Traceback" not in done.stderr
        assert [stored.event_name for stored in hive.events()] == ["first", "last"]


@pytest.mark.parametrize("text", ["x", "\N{HONEYBEE}", '"', "\x00", "é"], ids=ascii)
def test_no_body_is_longer_than_its_limit_whatever_is_in_it(text: str) -> None:
    """Batches were cut by the lengths of something else than their bytes on the wire, and came back as 413
    (langfuse/langfuse#1631).
    """
    transport = FakeTransport()

    async def main() -> None:
        batcher = make_batcher(transport, max_batch_bytes=4096)
        async with batcher:
            with batcher.session(session_name=text * 20):
                for size in range(300):
                    batcher.push({"inputs": text * size})
            for size in range(300):
                batcher.push({"inputs": text * size})
        assert fates(batcher)["delivered"] == check_ledger(batcher).accepted > 500

    run_virtually(main)
    sizes = [len(sent.request.body) for sent in transport.sent]
    assert max(sizes) <= 4096
    assert max(sizes) > 3500  # and the room is used
    for sent in transport.sent:
        assert json.loads(sent.request.body)


@pytest.mark.parametrize("trouble", [OK, RESET, Response(status=503), Response(status=413)], ids=repr)
def test_no_request_carries_more_events_than_its_limit(trouble: Step) -> None:
    """Batches of more than 500 events were sent, and refused as a whole (tinyhumansai/openhuman#4675)."""
    transport = FakeTransport(trouble)

    async def main() -> None:
        batcher = make_batcher(transport, max_batch_events=500, max_queue_events=20_000)
        for _ in range(1999):
            assert batcher.push(EVENT)
        async with batcher:
            for _ in range(1999):
                assert batcher.push(EVENT)
            await asyncio.sleep(1)
            for _ in range(1999):
                assert batcher.push(EVENT)
            await batcher.flush(timeout=0.1)
            for _ in range(1999):
                assert batcher.push(EVENT)
        assert fates(batcher) == {"delivered": 4 * 1999}

    run_virtually(main)
    assert max(transport.sizes) == 500


def test_a_batcher_that_was_shut_down_can_be_used_again() -> None:
    """A processor that was shut down took no more traces, also when it was set up anew
    (openai/openai-agents-python#4684).
    """
    transport = FakeTransport()

    async def main() -> None:
        batcher = make_batcher(transport)
        for run in range(3):
            async with batcher:
                assert batcher.push({**EVENT, "event_name": str(run)})
            assert batcher.push(EVENT) is Admission.CLOSED
        assert fates(batcher) == {"delivered": 3}

    run_virtually(main)
    assert Counter(str(event["event_name"]) for sent in transport.sent for event in sent.events) == {
        "0": 1,
        "1": 1,
        "2": 1,
    }


def test_a_start_that_was_forgotten_hangs_nobody_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A producer that was never started hung its caller for ever (aio-libs/aiokafka#759)."""

    async def main() -> None:
        batcher = make_batcher(FakeTransport(), max_queue_events=1)
        assert batcher.push(EVENT)
        assert batcher.push(EVENT) is Admission.QUEUE_FULL
        assert (await batcher.flush()).held == 1
        with pytest.raises(TimeoutError):
            await batcher.put(EVENT, timeout=1)
        assert now() == 1.0
        await batcher.aclose()
        assert now() == 1.0
        assert fates(batcher) == {"shutdown": 1}
        with pytest.raises(ClosedError):
            await batcher.put(EVENT)
        forgotten = make_batcher(FakeTransport())
        assert forgotten.push(EVENT)
        with pytest.warns(ResourceWarning, match="1 events held"):
            del forgotten
        assert virtual_loop().turns < 50

    run_virtually(main)
    said = [record.getMessage() for record in caplog.records]
    assert any("never started: 1 events are lost" in line for line in said)
    assert any("1 dropped" in line for line in said)
