"""What a user's own tests see of what the program pushes."""

import subprocess
import sys
import threading
from typing import Any

import pytest

from honeyhive_batcher import Admission, Batcher, BlockingBatcher, ModelEvent
from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.testing import CapturedEvent, capture, collector, collector_in_thread

ADMIT = Intake.admit
MODULE_LEVEL = Batcher(api_key="hh_test", project="Bees")
PUSH = MODULE_LEVEL.push


def test_a_batcher_made_before_and_not_started_is_captured(honeyhive_events: list[CapturedEvent]) -> None:
    assert PUSH(ModelEvent(model="gpt-4o")) is Admission.ACCEPTED
    (event,) = honeyhive_events
    assert event.model == event["model"] == "gpt-4o"
    assert event.project == "Bees"
    assert len(event.event_id) == 36
    with pytest.raises(AttributeError, match="no 'cost', only"):
        _ = event.cost
    assert MODULE_LEVEL.statistics().held == 0


@pytest.mark.anyio
async def test_an_asynchronous_test_captures_and_the_server_gets_nothing(
    honeyhive_events: list[CapturedEvent],
) -> None:
    async with collector() as hive, Batcher(**hive.settings(), flush_interval=0.01) as batcher:
        with batcher.session(session_id="s"):
            batcher.push({"model": "a"})
            await batcher.put({"model": "b"})
        assert (await batcher.flush(5)).ok
        assert hive.stats().requests == 0
    assert [(event.model, event.session_id) for event in honeyhive_events] == [("a", "s"), ("b", "s")]


def test_a_blocking_batcher_and_other_threads_are_captured() -> None:
    with collector_in_thread() as hive, capture() as events, BlockingBatcher(**hive.settings()) as batcher:
        thread = threading.Thread(target=batcher.push, args=({"model": "a"},))
        thread.start()
        thread.join()
        batcher.put({"model": "b"})
        assert batcher.flush(5).ok
        assert hive.stats().requests == 0
    assert [event.model for event in events] == ["a", "b"]


def test_what_would_be_refused_is_and_before_send_is_asked() -> None:
    def redact(event: dict[str, Any]) -> dict[str, Any] | None:
        return None if event["model"] == "secret" else event | {"model": "redacted"}

    batcher = Batcher(api_key="hh_test", before_send=redact)
    with capture() as events:
        assert batcher.push({"model": "secret"}) is Admission.FILTERED
        assert MODULE_LEVEL.push("no event") is Admission.NOT_AN_EVENT
        assert batcher.push({"model": "a"})
    assert [event.model for event in events] == ["redacted"]


def test_the_innermost_capture_has_the_event_and_nothing_is_left_behind() -> None:
    with capture() as outer:
        with capture() as inner:
            MODULE_LEVEL.push({"model": "a"})
        MODULE_LEVEL.push({"model": "b"})
        assert Intake.admit is not ADMIT
    assert Intake.admit is ADMIT
    assert ([event.model for event in inner], [event.model for event in outer]) == (["a"], ["b"])


def test_the_plugin_imports_no_client_when_pytest_starts() -> None:
    # Only what it brings: coverage, where it measures, has imported more before.
    program = (
        "import sys; before = set(sys.modules); import honeyhive_batcher.pytest_plugin; "
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    brought = set(done.stdout.split())
    assert "honeyhive_batcher.pytest_plugin" in brought
    assert not {"aiohttp", "sqlite3", "prometheus_client", "opentelemetry"} & brought


def test_the_end_of_a_session_is_no_event_of_its_own() -> None:
    batcher = Batcher(api_key="hh_any")
    with capture() as events, batcher.session(session_name="Ask") as session:
        batcher.push({"model": "a"})
        session.outputs = {"answer": "Honey."}
    assert [(event["model"], event["session_id"]) for event in events] == [("a", session.session_id)]


@pytest.mark.anyio
async def test_a_closed_batcher_refuses_in_a_capture_as_well() -> None:
    async with Batcher(api_key="hh_any", test_mode=True) as batcher:
        fragment = batcher._encoder.encode({"model": "a"})
    assert isinstance(fragment, Fragment)
    with capture() as events:
        assert batcher._intake.admit(fragment, SESSIONLESS, 0.0) is Admission.CLOSED
    assert events == []
