"""What the contract takes and what it refuses, over a real socket."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from honeyhive_batcher.collector.contract import parse_batch, parse_update
from honeyhive_batcher.collector.refusal import RefusedError
from honeyhive_batcher.testing import Collector

Call = Callable[..., Awaitable[tuple[int, Any]]]
Make = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.anyio

OF_KIND: dict[str, Any] = {
    "null": None,
    "boolean": True,
    "number": 1.5,
    "string": "text",
    "array": [],
    "object": {},
}

EVENT_FIELDS = {
    "project": "string",
    "model": "string",
    "provider": "string",
    "messages": "array",
    "response": "object array string null",
    "duration": "number",
    "usage": "object",
    "cost": "number string null",
    "error": "string null",
    "source": "string",
    "event_name": "string",
    "hyperparameters": "object",
    "template": "array object string null",
    "template_inputs": "object null",
    "tools": "array null",
    "tool_choice": "string object null",
    "response_format": "object null",
    "event_id": "string",
    "session_id": "string",
    "parent_id": "string",
    "children_ids": "array",
    "config": "object null",
    "inputs": "object",
    "outputs": "object array null",
    "start_time": "number",
    "end_time": "number",
    "metadata": "object null",
    "feedback": "object null",
    "metrics": "object null",
    "user_properties": "object null",
    "project_id": "string",
    "model_name": "string",
    "model_version": "string",
}

SESSION_FIELDS = {
    "session_name": "string",
    "source": "string",
    "session_id": "string",
    "config": "object",
    "inputs": "object",
    "outputs": "object",
    "error": "string null",
    "user_properties": "object",
    "metrics": "object",
    "feedback": "object",
    "metadata": "object",
    "start_time": "number",
}

UPDATE_FIELDS = {
    "metadata": "object null",
    "feedback": "object null",
    "metrics": "object null",
    "config": "object null",
    "user_properties": "object null",
    "outputs": "object null",
    "error": "string null",
    "duration": "number",
    "end_time": "number",
    "children_ids": "array",
}


def kinds_of(fields: dict[str, str]) -> list[tuple[str, str, bool]]:
    return [(name, kind, kind in kinds.split()) for name, kinds in fields.items() for kind in OF_KIND]


def refusal(parse: Callable[[bytes], object], body: Any) -> str | None:
    """The message of the refusal, or None."""
    try:
        parse(json.dumps(body).encode())
    except RefusedError as refused:
        return refused.message if refused.status == 400 else f"refused with {refused.status}"
    return None


@pytest.mark.parametrize(("name", "kind", "fits"), kinds_of(EVENT_FIELDS))
def test_every_documented_field_of_an_event_has_its_types(
    event: Make, name: str, kind: str, fits: bool
) -> None:
    message = refusal(parse_batch, {"model_events": [event(), event(**{name: OF_KIND[kind]})]})
    if fits:
        assert message is None
    else:
        assert message is not None
        assert message.startswith(f"model_events[1].{name}: expected ")
        assert message.endswith(f", got {kind}")


@pytest.mark.parametrize(("name", "kind", "fits"), kinds_of(SESSION_FIELDS))
@pytest.mark.parametrize("alias", ["session_properties", "session"])
def test_every_documented_field_of_a_session_has_its_types(
    event: Make, alias: str, name: str, kind: str, fits: bool
) -> None:
    message = refusal(parse_batch, {"model_events": [event()], alias: {name: OF_KIND[kind]}})
    if fits:
        assert message is None
    else:
        assert message is not None
        assert message.startswith(f"{alias}.{name}: expected ")


@pytest.mark.parametrize(("name", "kind", "fits"), kinds_of(UPDATE_FIELDS))
def test_every_documented_field_of_an_update_has_its_types(name: str, kind: str, fits: bool) -> None:
    message = refusal(parse_update, {"event_id": "e", name: OF_KIND[kind]})
    if fits:
        assert message is None
    else:
        assert message is not None
        assert message.startswith(f"{name}: expected ")


@pytest.mark.parametrize(
    "name", ["project", "model", "provider", "messages", "response", "duration", "usage"]
)
async def test_a_classic_event_without_a_required_field_is_refused_by_name(
    post: Call, hive: Collector, event: Make, name: str
) -> None:
    status, answer = await post(event(), event(), event(), event(**{name: ...}))
    assert (status, answer) == (
        400,
        {
            "statusCode": 400,
            "message": f"model_events[3].{name}: required",
            "success": False,
            "errorCode": "BAD_REQUEST",
        },
    )
    assert hive.events() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"model_name": "m"},
        {"event_type": "model", "event_name": "n"},
        {"event_type": "tool", "model": "m"},
        {"event_type": "session", "model_name": "m"},
        {"event_type": "chain", "model_name": "m"},
    ],
)
async def test_an_event_of_the_newer_schema_needs_a_name_only(
    post: Call, hive: Collector, fields: dict[str, Any]
) -> None:
    status, _ = await post(fields)
    assert status == 200
    assert len(hive.events()) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "model_events: required"),
        ({"model_events": []}, "model_events: must hold at least one event"),
        ({"model_events": None}, "model_events: expected array, got null"),
        ({"model_events": {"0": {}}}, "model_events: expected array, got object"),
        ({"model_events": [7]}, "model_events[0]: expected object, got number"),
        ({"model_events": [[]]}, "model_events[0]: expected object, got array"),
        ({"model_events": [None]}, "model_events[0]: expected object, got null"),
        (
            {"model_events": [{"event_type": "model"}]},
            "model_events[0].model_name: required (or event_name, or model)",
        ),
        (
            {"model_events": [{"event_type": "llm", "model": "m"}]},
            "model_events[0].event_type: expected one of model, tool, chain, session",
        ),
        (
            {"model_events": [{"model_name": "m", "children_ids": ["a", 1]}]},
            "model_events[0].children_ids[1]: expected string, got number",
        ),
        (
            {"model_events": [{"model_name": "m", "event_id": ""}]},
            "model_events[0].event_id: must not be empty",
        ),
        (
            {"model_events": [{"model_name": "m", "duration": True}]},
            "model_events[0].duration: expected number, got boolean",
        ),
        (
            {"model_events": [{"model_name": "m", "tool_choice": 1}]},
            "model_events[0].tool_choice: expected string, object or null, got number",
        ),
        (
            {"model_events": [{"model_name": "m"}], "is_single_session": "true"},
            "is_single_session: expected boolean, got string",
        ),
        (
            {"model_events": [{"model_name": "m"}], "single_session": None},
            "single_session: expected boolean, got null",
        ),
        (
            {"model_events": [{"model_name": "m"}], "session_properties": None},
            "session_properties: expected object, got null",
        ),
        (
            {"model_events": [{"model_name": "m"}], "session_properties": {"session_id": ""}},
            "session_properties.session_id: must not be empty",
        ),
    ],
)
async def test_a_wrong_body_is_refused_by_the_field_that_is_wrong(
    post: Call, hive: Collector, body: Any, message: str
) -> None:
    status, answer = await post(body=body)
    assert (status, answer["message"]) == (400, message)
    assert hive.events() == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: not JSON: Input data was truncated"),
        (b"[]", "body: expected object, got array"),
        (b'"text"', "body: expected object, got str"),
        (b'{"model_events": [{"model_name": "m"}]', "body: not JSON: "),
        (b'{"model_events": [{"model_name": "m"}]} x', "body: not JSON: "),
        (b'{"model_events": [{"model_name": "m", "cost": NaN}]}', "body: not JSON: "),
        (b'{"model_events": [{"model_name": "\xff"}]}', "model_events[0]: not JSON: "),
        (b'{"\xff": 1}', "body: not JSON: "),
        (b'{"model_events": [{"model_name": "m", "cost": 1e999}]}', "model_events[0]: number out of range"),
        (b'{"x": "\xff", "model_events": [{"model_name": "m"}]}', "x: not JSON: "),
        (b'{"x": ' + b"[" * 9999 + b"]" * 9999 + b"}", "body: nested too deeply"),
    ],
    ids=range(11),
)
async def test_what_is_no_json_object_is_refused(
    post_bytes: Call, hive: Collector, body: Any, message: str
) -> None:
    status, answer = await post_bytes(body)
    assert status == 400
    assert answer["message"].startswith(message)
    assert hive.events() == []


async def test_unknown_fields_are_welcome_everywhere(post: Call, hive: Collector, event: Make) -> None:
    status, _ = await post(event(my_field=1), my_top=[1], session_properties={"mine": None})
    assert status == 200
    assert hive.events()[0].event["my_field"] == 1


async def test_the_example_of_the_documentation_is_taken(post: Call, hive: Collector, event: Make) -> None:
    """The request on HoneyHive's page "Create a batch of model events", shortened in its texts only."""
    session_id = "caf77ace-3417-4da4-944d-f4a0688f3c23"
    status, answer = await post(
        event(
            cost=0.00008,
            error=None,
            source="playground",
            event_name="Model Completion",
            hyperparameters={"temperature": 0, "stop": [], "n": 1},
            template=[{"role": "system", "content": "Hello, {{ name }}!"}],
            template_inputs={"name": "world"},
            tools=[{"type": "function", "function": {"name": "get_current_weather"}}],
            tool_choice="none",
            response_format={"type": "text"},
        ),
        is_single_session=True,
        session_properties={
            "source": "playground",
            "session_name": "Playground Session",
            "session_id": session_id,
            "inputs": {"context": "Hello world"},
            "outputs": {"role": "assistant", "content": "Hello world"},
            "error": None,
            "metrics": {},
            "feedback": {},
            "metadata": {},
            "user_properties": {"user": "google-oauth2|111840237613341303366"},
        },
    )
    assert status == 200
    assert answer == {"event_ids": [hive.events()[0].event_id], "success": True}
    assert hive.events()[0].session_id == session_id


async def test_real_events_are_taken_and_kept_as_they_came(
    post_bytes: Call, hive: Collector, corpus: list[bytes]
) -> None:
    status, answer = await post_bytes(b'{"model_events": [' + b" ,\n".join(corpus) + b"]}")
    stored = hive.events()
    assert status == 200
    assert answer["event_ids"] == [each.event_id for each in stored]
    for line, each in zip(corpus, stored, strict=True):
        assert each.event == {"event_id": each.event_id, **json.loads(line)}
        assert each.raw.endswith(line[1:])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "event_id: required"),
        ({"event_id": None}, "event_id: expected string, got null"),
        ({"event_id": ""}, "event_id: must not be empty"),
        ({"event_id": "e", "outputs": ["a list"]}, "outputs: expected object or null, got array"),
        ({"event_id": "e", "children_ids": [{}]}, "children_ids[0]: expected string, got object"),
        ([], "body: expected object, got array"),
    ],
)
async def test_a_wrong_update_is_refused_by_the_field_that_is_wrong(
    client: aiohttp.ClientSession, body: Any, message: str
) -> None:
    async with client.put("/events", json=body) as response:
        assert response.status == 400
        assert (await response.json())["message"] == message
