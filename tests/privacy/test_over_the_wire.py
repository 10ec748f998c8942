"""What a strict server has of a program that keeps its content to itself: everything but that."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from honeyhive_batcher import Batcher, BlockingBatcher, redact
from honeyhive_batcher.redaction import EMAIL
from honeyhive_batcher.testing import Collector, collector_in_thread

CORPUS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "data" / "model_events.jsonl").read_text().splitlines()
]
SECRET = "sesame"


def environ(hive: Collector, **more: str) -> dict[str, str]:
    return {"HH_API_KEY": "hh_test", "HH_API_URL": hive.url, **more}


@pytest.mark.anyio
async def test_real_events_are_taken_as_ever_and_arrive_without_their_content() -> None:
    with collector_in_thread() as hive:
        async with Batcher.from_env(environ(hive, HH_BATCHER_CAPTURE_CONTENT="false")) as batcher:
            taken = 0
            for event in CORPUS:
                plain = {**event, "event_id": str(uuid.uuid4())}
                taken += bool(batcher.push(plain))
            result = await batcher.flush()
        whole = list(hive.events())
    with collector_in_thread() as hive:
        async with Batcher.from_env(environ(hive)) as batcher:
            for event in CORPUS:
                batcher.push(event)
            expected = await batcher.flush()
    # Not one more of them is refused than with their content.
    assert taken == len(CORPUS)
    assert (result.delivered, result.dropped) == (expected.delivered, expected.dropped)
    assert len(whole) == result.delivered > len(CORPUS) / 2
    assert {stored.event.get("model") for stored in whole} > {"gpt-4o", "claude-sonnet-4-20250514"}
    sizes = [len(json.dumps(stored.event)) for stored in whole]
    assert max(sizes) < 60_000 < max(len(json.dumps(event)) for event in CORPUS)


def test_neither_events_nor_sessions_show_it_on_the_wire() -> None:
    with collector_in_thread() as hive:
        settings: dict[str, Any] = {
            "project": "p",
            "before_send": redact(EMAIL),
            "before_session": redact(EMAIL),
        }
        batcher = BlockingBatcher.from_env(environ(hive, HH_BATCHER_CAPTURE_CONTENT="False"), **settings)
        with batcher, batcher.session(inputs={"question": SECRET}, metadata={"by": "a@b.co"}) as session:
            batcher.push(
                {
                    "model": "m",
                    "provider": "p",
                    "messages": [{"role": "user", "content": SECRET}],
                    "response": {"role": "assistant", "content": SECRET},
                    "duration": 1,
                    "usage": {"total_tokens": 5},
                    "error": f"ValueError: {SECRET}",
                    "metadata": {"by": "a@b.co"},
                }
            )
            batcher.flush()
            session.outputs = {"answer": SECRET}
        (stored,) = hive.events()
        (kept,) = hive.sessions()
    assert stored.event["messages"] == [{"role": "user", "content": "[6 characters]"}]
    assert (stored.event["error"], stored.event["usage"]) == ("ValueError", {"total_tokens": 5})
    assert stored.event["metadata"] == {"by": "[redacted]"}
    assert kept.properties["metadata"] == {"by": "[redacted]"}
    assert SECRET not in repr((stored, kept))
    assert batcher.statistics().delivered == 2


def test_a_sample_is_of_whole_sessions() -> None:
    with collector_in_thread() as hive:
        with BlockingBatcher.from_env(environ(hive, HH_BATCHER_SAMPLE_RATE="0.3"), project="p") as batcher:
            for _ in range(60):
                with batcher.session():
                    for _ in range(3):
                        batcher.push({"event_name": "e", "event_type": "model", "model_name": "m"})
        counts = [stored.session_id for stored in hive.events()]
    assert 0 < len(set(counts)) < 60
    assert {counts.count(name) for name in counts} == {3}
    numbers = batcher.statistics()
    assert numbers.refused == {"sampled": 180 - len(counts)}
    assert numbers.delivered == len(counts)
