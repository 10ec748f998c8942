"""Events and sessions pass the sample, `before_send` and the removal of content in this order."""

import asyncio
import json
from typing import Any

import pytest

from honeyhive_batcher import Admission, Batcher, ConfigError, EncodeError, SessionProperties, redact
from honeyhive_batcher.config import Config
from honeyhive_batcher.redaction import EMAIL
from tests.fakes import FakeTransport, check_ledger, make_batcher
from tests.virtual_time import run_virtually

SECRET = "sesame"
RAISES = [ZeroDivisionError(SECRET), asyncio.CancelledError(), RecursionError()]


def bodies(transport: FakeTransport) -> list[Any]:
    return [json.loads(sent.request.body) for sent in transport.sent]


def run(main: Any) -> None:
    run_virtually(main)


def test_content_goes_after_before_send_has_seen_it() -> None:
    seen: list[Any] = []

    def before_send(event: dict[str, Any]) -> dict[str, Any]:
        seen.append(event["response"])
        return {**event, "response": SECRET * 2, "source": "changed"}

    async def main() -> None:
        transport = FakeTransport()
        async with make_batcher(transport, capture_content=False, before_send=before_send) as batcher:
            assert batcher.push({"model": "m", "response": SECRET})
            assert await batcher.put({"model": "m", "response": SECRET})
        (body,) = bodies(transport)
        assert seen == [SECRET, SECRET]
        assert [event["response"] for event in body["model_events"]] == ["[12 characters]"] * 2
        assert [event["source"] for event in body["model_events"]] == ["changed"] * 2

    run(main)


def test_a_failure_to_take_content_out_lets_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        transport = FakeTransport()
        async with make_batcher(transport, capture_content=False) as batcher:
            session = batcher.session(session_id="s", inputs={"text": SECRET}, session_name="n")
            for error in RAISES:

                def fail(_: object, error: BaseException = error) -> None:
                    raise error

                monkeypatch.setattr("honeyhive_batcher.gate.without_content", fail)
                assert batcher.push({"model": SECRET}) is Admission.FILTERED
                assert await batcher.put({"model": SECRET}) is Admission.FILTERED
            monkeypatch.undo()
            monkeypatch.setattr("honeyhive_batcher.session.without_content", lambda _: 1 / 0)
            other = batcher.session(session_id="t", inputs={"text": SECRET})
            assert batcher.push({"model": "m"}, session=session)
            assert batcher.push({"model": "m"}, session=other)
            session.outputs = SECRET
            session.close()
        assert SECRET not in json.dumps(bodies(transport))
        properties = [body.get("session_properties") for body in bodies(transport)]
        assert {"session_id": "t"} in properties
        numbers = check_ledger(batcher)
        assert numbers.refused == {"filtered": 6}
        assert numbers.callback_errors == 8

    run(main)


def test_an_event_that_is_too_large_to_look_at_is_told_so() -> None:
    async def main() -> None:
        async with make_batcher(FakeTransport(), capture_content=False) as batcher:
            large = {"model": "m", "response": "x" * 17_000_000}
            assert batcher.push(large) is Admission.TOO_LARGE
            with pytest.raises(EncodeError, match="too large to be looked at"):
                await batcher.put(large)
            # What is too large with its content only is not.
            assert batcher.push({"model": "m", "response": "x" * 5_000_000})
        assert check_ledger(batcher).refused == {"too_large": 2}

    run(main)


def test_of_a_session_no_content_leaves_neither_at_its_beginning_nor_at_its_end() -> None:
    async def main() -> None:
        transport = FakeTransport()
        async with make_batcher(transport, capture_content=False, flush_interval=0) as batcher:
            with batcher.session(
                SessionProperties(session_id="s", session_name="Chat", inputs={"question": SECRET}),
                metadata={"tenant": "acme"},
                config={"top_k": 3, "prompt": SECRET},
                answer=SECRET,
            ) as session:
                assert batcher.push({"model": "m"})
                await asyncio.sleep(1)
                session.outputs, session.error = {"content": SECRET}, f"ValueError: {SECRET}"
                session.metrics, session.feedback = {"score": 1, "why": SECRET}, {"text": SECRET}
                assert session.outputs == {"content": SECRET}
            await asyncio.sleep(1)
            with batcher.session(session_id="t") as session:
                assert batcher.push({"model": "m"})
                session.outputs = SECRET
        first, update, second = bodies(transport)
        assert SECRET not in json.dumps([first, update, second])
        assert first["session_properties"] == {
            "session_id": "s",
            "session_name": "Chat",
            "inputs": {"omitted": "[1 member, 6 characters]"},
            "metadata": {"tenant": "acme"},
            "config": {"top_k": 3, "prompt": "[6 characters]"},
            "answer": "[6 characters]",
        }
        assert update == {
            "event_id": "s",
            "outputs": {"content": "[6 characters]"},
            "metrics": {"score": 1, "why": "[6 characters]"},
            "feedback": {"text": "[6 characters]"},
            "error": "ValueError",
            "metadata": {"tenant": "acme"},
        }
        assert second["session_properties"] == {"session_id": "t", "outputs": {"output": "[6 characters]"}}
        assert batcher.statistics().callback_errors == 0

    run(main)


def test_before_session_sees_what_begins_and_what_ends_and_may_change_it() -> None:
    seen: list[dict[str, Any]] = []

    def before_session(properties: dict[str, Any]) -> Any:
        seen.append(dict(properties))
        properties["session_id"] = "another"  # it is a copy, and the id stays
        return redact(EMAIL)(properties)

    async def main() -> None:
        transport = FakeTransport()
        inputs = {"from": "a@b.co"}
        async with make_batcher(transport, before_session=before_session, session_name="n") as batcher:
            with batcher.session(session_id="s", inputs=inputs) as session:
                assert batcher.push({"model": "m"})
                session.outputs = {"to": "c@d.org"}
        (body,) = bodies(transport)
        assert body["session_properties"] == {
            "session_name": "n",
            "session_id": "s",
            "inputs": {"from": "[redacted]"},
            "outputs": {"to": "[redacted]"},
        }
        assert inputs == {"from": "a@b.co"}
        assert seen == [
            {"session_name": "n", "session_id": "s", "inputs": inputs},
            {"outputs": {"to": "c@d.org"}},
        ]

    run(main)


@pytest.mark.parametrize("answer", [None, {}, 7, *RAISES], ids=repr)
def test_of_properties_that_before_session_keeps_or_cannot_look_at_only_the_id_is_sent(answer: Any) -> None:
    def before_session(_: object) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def main() -> None:
        transport = FakeTransport()
        async with make_batcher(transport, before_session=before_session) as batcher:
            with batcher.session(session_id="s", session_name=SECRET) as session:
                assert batcher.push({"model": "m"})
                session.outputs = {"a": SECRET}
        (body,) = bodies(transport)
        assert body["session_properties"] == {"session_id": "s"}
        is_wrong = answer is not None and answer != {}
        assert check_ledger(batcher).callback_errors == (2 if is_wrong else 0)

    run(main)


def test_before_session_may_answer_with_a_struct_and_is_not_asked_about_nothing() -> None:
    asked: list[Any] = []

    def before_session(properties: dict[str, Any]) -> SessionProperties:
        asked.append(properties)
        return SessionProperties(session_name="named")

    async def main() -> None:
        transport = FakeTransport()
        settings: dict[str, Any] = {"capture_content": False, "before_session": before_session}
        async with make_batcher(transport, **settings) as batcher:
            with batcher.session(session_id="s"):
                assert batcher.push({"model": "m"})
        (body,) = bodies(transport)
        assert body["session_properties"] == {"session_name": "named", "session_id": "s"}
        assert asked == [{"session_id": "s"}]

    run(main)


def test_before_session_has_to_be_a_plain_function() -> None:
    async def before_session(_: object) -> None: ...

    with pytest.raises(ConfigError, match="before_session is called, not awaited"):
        Batcher(api_key="hh_test", before_session=before_session)


def test_values_of_a_session_that_have_no_word_in_json_are_counted() -> None:
    batcher = Batcher(api_key="hh_test", capture_content=False)
    session = batcher.session(session_id="s", metadata={"a": object(), "b": SECRET})
    assert json.loads(session.key.properties)["metadata"] == {"a": "<not JSON: object>", "b": SECRET}
    assert batcher.statistics().repaired == 1


@pytest.mark.parametrize("text", ["no", "off", "flase", "2"])
def test_a_misspelt_wish_for_privacy_is_an_error_and_not_a_default(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"HH_BATCHER_CAPTURE_CONTENT='.*' is not valid: Expected true or false"
    ):
        Config.from_env({"HH_API_KEY": "k", "HH_BATCHER_CAPTURE_CONTENT": text})
