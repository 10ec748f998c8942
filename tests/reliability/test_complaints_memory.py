"""Memory: what users of other exporters complained about, and what must not happen here. In virtual time."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from honeyhive_batcher.core.model import Response
from tests.fakes import HANG, OK, REFUSED, RESET, FakeTransport, Step, check_ledger, fates, make_batcher
from tests.virtual_time import VirtualTimeLoop

pytestmark = pytest.mark.anyio

BOUND = 200_000


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
@pytest.mark.parametrize(
    "server",
    [HANG, RESET, REFUSED, Response(status=503), Response(status=401)],
    ids=["hangs", "resets", "refuses", "503", "401"],
)
async def test_a_server_that_is_slow_or_away_cannot_fill_the_memory(server: Step, overflow: str) -> None:
    """A queue without a bound took an application's memory after some dozens of requests, when its back end
    was slow (openlayer-ai/openlayer-python#661, langchain-ai/langsmith-sdk#2459).
    """
    transport = FakeTransport(otherwise=server)
    batcher = make_batcher(
        transport, max_queue_bytes=BOUND, overflow=overflow, max_batch_events=10, request_timeout=3600
    )
    await batcher.start()
    most = 0
    for number in range(600):
        batcher.push({"event_id": f"{number:06}", "inputs": "x" * 2000})
        if number % 20 == 0:
            await asyncio.sleep(0.5)
        numbers = check_ledger(batcher)
        # From the outside: what has not met its fate is in memory, wherever it is.
        assert numbers.held_bytes <= BOUND
        assert numbers.held * 2000 <= BOUND
        most = max(most, numbers.held_bytes)
    assert most > 0.9 * BOUND
    numbers = check_ledger(batcher)
    assert numbers.offered == 600
    if server in (HANG, REFUSED):
        lost = 600 - numbers.held
        assert sum(numbers.refused.values()) + sum(numbers.dropped.values()) == lost > 450
    await batcher.aclose(timeout=0)
    assert check_ledger(batcher).held_bytes == 0


@pytest.mark.parametrize("outcome", [OK, RESET, Response(status=503)], ids=["ok", "reset", "503"])
async def test_a_batch_that_was_sent_is_let_go_of_and_not_sent_along_with_the_next(outcome: Step) -> None:
    """The list of events was never cleared, so that memory leaked and every batch carried all of those
    before it again (BerriAI/litellm#25660).
    """
    transport = FakeTransport(OK, outcome, latency=0.2)
    async with make_batcher(transport) as batcher:
        for batch in range(20):
            for number in range(5):
                assert batcher.push({"event_id": f"{batch}-{number}", "inputs": "x" * 1000})
            await batcher.flush()
            assert check_ledger(batcher).held_bytes == 0
    assert fates(batcher) == {"delivered": 100}
    sent = Counter(str(event["event_id"]) for request in transport.sent for event in request.events)
    assert len(sent) == 100
    assert set(sent.values()) <= {1, 2}
    assert [name for name, times in sent.items() if times == 2] == (
        [] if outcome is OK else [f"1-{number}" for number in range(5)]
    )
    assert set(transport.sizes) == {5}
