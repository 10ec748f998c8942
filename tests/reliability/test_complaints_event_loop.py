"""The event loop: what users of other exporters complained about, and what must not happen here."""

import asyncio
import itertools
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import pytest

from honeyhive_batcher import Admission, Batcher
from honeyhive_batcher.core import cycle, repair
from honeyhive_batcher.runtime.seams import Seams
from tests.fakes import HANG, REFUSED, FakeTransport, Step, check_ledger, fates, make_batcher
from tests.virtual_time import now, run_virtually, virtual_loop

EVENT = {"model": "gpt-4o"}


class Graph:
    """An object of an application, in a graph that goes in circles."""

    looked_into = 0

    def __init__(self) -> None:
        self.parent: Graph | None = None
        self.children: list[Graph] = []

    def __getattribute__(self, name: str) -> Any:
        if name in {"__dict__", "parent", "children"}:
            Graph.looked_into += 1
        return super().__getattribute__(name)


def circle() -> object:
    values: list[Any] = [{"text": "round"}]
    values[0]["again"] = values
    return values


def lattice() -> object:
    """Return forty levels that each hold the next one twice: a walk along every path never ends."""
    values: list[Any] = [object()]
    for _ in range(40):
        values = [values, values]
    return values


def well() -> object:
    values: list[Any] = []
    for _ in range(100_000):
        values = [values]
    return values


def graph() -> object:
    root, child = Graph(), Graph()
    root.children.append(child)
    child.parent = root
    return root


@pytest.mark.parametrize("value", [circle, lattice, well, graph])
def test_a_value_that_goes_in_circles_costs_neither_the_loop_nor_the_event(
    value: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A serialiser followed cyclic graphs of foreign objects for ever and blocked the event loop
    (langfuse/langfuse-python#1655).
    """
    for module in (cycle, repair):
        monkeypatch.setattr(module, "MAX_VISITS", 10_000)  # the bound itself has its own test
    transport = FakeTransport()
    looked_into = 0

    async def main() -> None:
        nonlocal looked_into
        async with make_batcher(transport) as batcher:
            built = value()
            Graph.looked_into = 0
            assert batcher.push({**EVENT, "inputs": {"value": built}})
            looked_into = Graph.looked_into
        assert fates(batcher) == {"delivered": 1}
        assert batcher.statistics().repaired

    run_virtually(main)
    ((event,),) = (sent.events for sent in transport.sent)
    assert event["model"] == "gpt-4o"
    assert looked_into == 0


def calls_of(action: Callable[[], object]) -> list[str]:
    """Return the names of the functions that `action` calls."""
    calls: list[str] = []

    def note(frame: FrameType, kind: str, value: Any) -> None:
        if kind == "call":
            calls.append(frame.f_code.co_name)
        elif kind == "c_call":
            calls.append(value.__name__)

    sys.setprofile(note)
    action()
    sys.setprofile(None)
    return calls


WAITING = {"sleep", "wait", "acquire", "select", "poll", "connect", "send", "recv", "open", "write", "read"}


@pytest.mark.parametrize("server", [HANG, REFUSED], ids=["hangs", "refuses"])
def test_a_push_costs_as_little_whatever_waits_and_whatever_the_server_does(server: Step) -> None:
    """Tracing added seconds to every answer of a chat, because it worked, or waited for its server, in the
    path of the request (openai/openai-agents-python#529, langchain-ai/langsmith-sdk#882).
    """

    async def main() -> None:
        batcher = make_batcher(FakeTransport(otherwise=server), max_queue_events=5000)
        event = {**EVENT, "event_id": "an id of its own"}

        def least() -> int:
            calls = [calls_of(lambda: batcher.push(event)) for _ in range(5)]
            assert WAITING.isdisjoint(itertools.chain(*calls))
            return min(map(len, calls))

        alone = least()
        await batcher.start()
        for _ in range(4900):
            assert batcher.push(EVENT)
        await asyncio.sleep(1)  # the server has its chance to be slow
        at, turns, threads = now(), virtual_loop().turns, threading.active_count()
        assert least() <= alone
        while batcher.push(event):
            pass
        assert least() <= alone + 10  # a full queue is noticed as fast
        assert (now(), virtual_loop().turns, threading.active_count()) == (at, turns, threads)
        await batcher.aclose(timeout=0)

    run_virtually(main)


def left_behind(main: Coroutine[Any, Any, None]) -> None:
    """Run in a loop that is closed with its tasks still in it."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it complains about the tasks, and rightly
    loop.run_until_complete(main)
    loop.close()


def test_what_is_queued_survives_a_change_of_the_event_loop() -> None:
    """When the event loop changed, the worker's task stayed behind in the old one and the queue was lost
    (BerriAI/litellm#36548).
    """
    transports = [FakeTransport(), FakeTransport(), FakeTransport()]
    waiting = iter(transports)
    batcher = Batcher(
        api_key="hh_test", flush_interval=3600, _seams=Seams(transport=lambda _config: next(waiting))
    )

    async def push(name: str) -> None:
        await batcher.start()
        assert batcher.push({**EVENT, "event_id": name})

    left_behind(push("first"))
    assert batcher.push({**EVENT, "event_id": "between"}) is Admission.ACCEPTED
    left_behind(push("second"))
    assert check_ledger(batcher).held == 3

    async def finish() -> None:
        async with batcher:
            assert (await batcher.flush()).delivered == 3

    asyncio.run(finish())
    assert fates(batcher) == {"delivered": 3}
    assert [len(transport.sent) for transport in transports] == [0, 0, 1]
    assert [event["event_id"] for event in transports[2].sent[0].events] == ["first", "between", "second"]
