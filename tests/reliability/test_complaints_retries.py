"""Duplicates and retries: what users of other exporters complained about, and what must not happen here. In
virtual time.
"""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from honeyhive_batcher.core.model import Reply, Response
from tests.fakes import OK, RESET, FakeTransport, Step, fates, make_batcher
from tests.virtual_time import VirtualTimeLoop, now

pytestmark = pytest.mark.anyio

EVENT = {"model": "gpt-4o"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def partial(taken: list[str], errors: int) -> Response:
    body = {"event_ids": taken, "errors": ["missing model"] * errors, "success": True}
    return Response(status=500, body=json.dumps(body).encode())


@pytest.mark.parametrize("lost_answer", [RESET, Response(status=502)], ids=["reset", "502"])
async def test_a_retry_is_the_same_request_with_the_same_ids(lost_answer: Step) -> None:
    """Retries made spans twice, and nothing told the copies from their originals
    (open-telemetry/opentelemetry-collector#11056).
    """
    transport = FakeTransport(lost_answer, lost_answer)
    async with make_batcher(transport) as batcher:
        assert batcher.push(EVENT)
        assert batcher.push({**EVENT, "event_id": "an id of its own"})
        await asyncio.sleep(60)
    assert fates(batcher) == {"delivered": 2}
    assert len(transport.sent) == 3
    assert len({sent.request.body for sent in transport.sent}) == 1
    own, given = (event["event_id"] for event in transport.sent[0].events)
    assert own
    assert given == "an id of its own"


async def test_a_partial_success_is_told_event_by_event_and_nothing_taken_is_sent_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A partial success was ignored: nobody learned which spans had been refused
    (open-telemetry/opentelemetry-python#4803), and others sent again what had been taken
    (open-telemetry/opentelemetry-collector#11056).
    """
    told: list[tuple[Any, ...]] = []
    transport = FakeTransport(partial(["a", "c"], 2), partial([], 2))
    batcher = make_batcher(
        transport,
        on_delivered=lambda ids: told.append(("delivered", *ids)),
        on_dropped=lambda ids, reason: told.append((reason, *ids)),
    )
    async with batcher:
        for name in "abcd":
            assert batcher.push({**EVENT, "event_id": name})
        result = await batcher.flush()
        assert (result.ok, result.delivered, result.dropped) == (False, 2, 2)
        await asyncio.sleep(60)
    assert told == [("delivered", "a", "c"), ("rejected", "b", "d")]
    assert fates(batcher) == {"delivered": 2, "rejected": 2}
    sent = Counter(str(event["event_id"]) for request in transport.sent for event in request.events)
    assert sent == {"a": 1, "b": 2, "c": 1, "d": 2}
    assert any("2 rejected" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("status", [400, 406, 413, 415, 418, 422, 501, 500])
async def test_no_status_is_retried_for_ever(status: int) -> None:
    """A call that the server refused with 400 was sent again and again, for ever (wandb/weave#4395)."""
    transport = FakeTransport(otherwise=Response(status=status))
    async with make_batcher(transport) as batcher:
        for _ in range(64):
            assert batcher.push(EVENT)
        await asyncio.sleep(1000)
        assert batcher.statistics().held == 0
        sent = len(transport.sent)
        await asyncio.sleep(100_000)
        assert len(transport.sent) == sent
    lost = fates(batcher)
    assert sum(lost.values()) == 64
    if status == 413:
        assert lost == {"too_large": 64}
    elif status < 500 and status != 429:
        assert lost == {"rejected": 64}
        assert sent <= 13  # 2 * log2(64) + 1, and not one for each event
    else:
        assert lost == {"unconfirmed": 64}
        assert sent <= 10


@pytest.mark.parametrize("status", [408, 425, 429, 503])
async def test_a_status_that_asks_to_come_again_is_come_back_to_at_the_pace_of_an_outage(status: int) -> None:
    """For as long as the server pushes everything back, and no event is lost by it; but one batch that it
    pushes back alone, among others that it takes, is given up (wandb/weave#4395).
    """
    transport = FakeTransport(otherwise=Response(status=status))
    async with make_batcher(transport, backoff_max=30) as batcher:
        for _ in range(64):
            assert batcher.push(EVENT)
        await asyncio.sleep(3600)
        assert len(transport.sent) <= 3600 / 30 + 10
        transport.otherwise = OK
        await asyncio.sleep(60)
    assert fates(batcher) == {"delivered": 64}

    async def busy_with_one() -> Reply:
        return Response(status=status) if b"poison" in transport.sent[-1].request.body else OK

    transport = FakeTransport(otherwise=busy_with_one)
    async with make_batcher(transport, max_batch_events=1) as batcher:
        batcher.push({"model": "poison"})
        for _ in range(1000):
            batcher.push(EVENT)
            await asyncio.sleep(0.1)
    assert fates(batcher) == {"delivered": 1000, "retries_exhausted": 1}


async def _requests(backlog: int, outage: float) -> tuple[int, float]:
    """Return how many requests an outage cost, and the instant at which all was delivered after it."""

    async def unavailable() -> Reply:
        return OK if now() >= began + outage else Response(status=503)

    began = now()
    transport = FakeTransport(otherwise=unavailable, latency=0.01)
    batcher = make_batcher(
        transport, max_batch_events=10, max_retries=1000, max_elapsed=10_000, max_in_flight=8
    )
    async with batcher:
        for _ in range(backlog):
            assert batcher.push(EVENT)
        await asyncio.sleep(outage - 0.001)
        during = len(transport.sent)
        while batcher.statistics().held:
            assert batcher.statistics().in_flight <= 8
            await asyncio.sleep(0.1)
        healed_at = now() - began - outage
    assert fates(batcher) == {"delivered": backlog}
    return during, healed_at


async def test_an_outage_costs_as_little_however_much_waits() -> None:
    """Whatever waited was retried at once and all together, a storm upon a server that was down already
    (Azure/azure-sdk-for-python#47002).
    """
    little, _ = await _requests(backlog=20, outage=300.0)
    much, healed_at = await _requests(backlog=5000, outage=300.0)
    assert much <= little + 8
    assert much <= 30
    assert healed_at <= 200
