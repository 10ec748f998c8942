"""Without its content an event keeps its shape and its figures, and not a word of what was said."""

import enum
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pydantic
import pytest
from msgspec import Struct

from honeyhive_batcher import Admission, Batcher, ModelEvent
from honeyhive_batcher.content import without_content
from honeyhive_batcher.testing import capture

SECRET = "sesame"  # stands wherever content can be; no word of any vocabulary
TOOL = {"type": "function", "function": {"name": "look_up", "description": SECRET, "parameters": {SECRET: 1}}}


class Message(pydantic.BaseModel):
    role: str
    content: Any


class Tagged(Struct, tag="sesame", rename={"text": "messages"}):
    text: list[dict[str, str]]
    model: str


class Row(Struct, array_like=True):
    text: str


@dataclass
class Part:
    text: str


def texts(value: Any) -> Iterator[str]:
    """Yield every text below, names of members included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        (
            {"messages": [{"role": "user", "content": SECRET}]},
            [{"role": "user", "content": "[6 characters]"}],
        ),
        ({"messages": [SECRET, "ab"]}, ["[2 items, 8 characters]"]),
        ({"messages": []}, []),
        ({"messages": [{"role": "USER"}, SECRET]}, [{"role": "USER"}, "[6 characters]"]),
        ({"messages": [{"role": SECRET}]}, [{"role": "[6 characters]"}]),
        ({"messages": [{"role": 5}]}, [{"role": "[number]"}]),
        (
            {"messages": [{"role": "user", "name": SECRET, "content": None}]},
            [{"role": "user", "content": None, "omitted": "[1 member, 6 characters]"}],
        ),
        (
            {"messages": [{"role": "tool", "name": "look_up", "content": SECRET}]},
            [{"role": "tool", "name": "look_up", "content": "[6 characters]"}],
        ),
        (
            {"messages": [{"role": "tool", "name": f"{SECRET} {SECRET}", "content": "a"}]},
            [{"role": "tool", "name": "[13 characters]", "content": "[1 character]"}],
        ),
        (
            {"response": {"content": [{"type": "tool_use", "name": "look_up", "input": {"type": SECRET}}]}},
            {"content": [{"type": "tool_use", "name": "look_up", "omitted": "[1 member, 6 characters]"}]},
        ),
        (
            {"response": {"tool_calls": [{"function": {"name": "look_up", "arguments": SECRET}}]}},
            {"tool_calls": [{"function": {"name": "look_up", "omitted": "[1 member, 6 characters]"}}]},
        ),
        (
            {"response": {"choices": [{"finish_reason": "max_tokens", "message": {"content": SECRET}}]}},
            {"choices": [{"finish_reason": "max_tokens", "message": {"content": "[6 characters]"}}]},
        ),
        ({"response": {"finish_reason": f"{SECRET}, {SECRET}"}}, {"finish_reason": "[14 characters]"}),
        ({"response": {"finish_reason": None}}, {"finish_reason": None}),
        ({"response": SECRET}, "[6 characters]"),
        ({"response": [0.1, 0.2]}, ["[2 items]"]),
        ({"response": [7]}, ["[1 item]"]),
        ({"response": 7}, "[number]"),
        ({"response": True}, "[number]"),
        ({"response": None}, None),
        (
            {"inputs": {"reason": SECRET, "text": SECRET}},
            {"reason": "[6 characters]", "text": "[6 characters]"},
        ),
        ({"inputs": {SECRET: SECRET}}, {"omitted": "[1 member, 6 characters]"}),
        ({"outputs": {"content": {"content": 5}}}, {"content": {"content": "[number]"}}),
        ({"template_inputs": {"a": {"b": [SECRET, {"c": "d"}]}}}, {"omitted": "[1 member, 7 characters]"}),
        (
            {"tools": [TOOL, {"name": "other", "input_schema": {SECRET: 1}}]},
            [
                {"type": "function", "function": {"name": "look_up", "omitted": "[2 members, 6 characters]"}},
                {"name": "other", "omitted": "[1 member, 0 characters]"},
            ],
        ),
        ({"tool_choice": "auto"}, "auto"),
        ({"tool_choice": f"{SECRET} {SECRET}"}, "[13 characters]"),
        ({"tool_choice": {"type": "tool", "name": "look_up"}}, {"type": "tool", "name": "look_up"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {SECRET: 1}}},
            {"type": "json_schema", "omitted": "[1 member, 0 characters]"},
        ),
        ({"what_nobody_knows": SECRET}, "[6 characters]"),
        ({"what_nobody_knows": 5}, "[number]"),
        ({"error": f"RateLimitError: {SECRET}"}, "RateLimitError"),
        ({"error": f"openai.APIError : {SECRET}"}, "openai.APIError"),
        ({"error": "TimeoutError"}, "TimeoutError"),
        ({"error": f"cannot read {SECRET}: gone"}, "[24 characters]"),
        ({"error": None}, None),
        (
            {"error": {"message": SECRET, "type": "failed"}},
            {"message": "[6 characters]", "type": "failed"},
        ),
        (
            {"hyperparameters": {"temperature": 0.5, "stream": True, "stop": [SECRET], "user": SECRET}},
            {
                "temperature": 0.5,
                "stream": True,
                "stop": ["[1 item, 6 characters]"],
                "user": "[6 characters]",
            },
        ),
        (
            {
                "hyperparameters": {
                    "reasoning": {"effort": "high"},
                    "modalities": ["text", "audio"],
                    "seed": None,
                }
            },
            {"reasoning": {"effort": "high"}, "modalities": ["text", "audio"], "seed": None},
        ),
        (
            {
                "hyperparameters": {
                    "voice": f"{SECRET}, loud",
                    "modalities": ["text", "a b"],
                    "logit_bias": {"50": 1},
                }
            },
            {
                "voice": "[12 characters]",
                "modalities": ["[2 items, 7 characters]"],
                "logit_bias": {"omitted": "[1 member, 0 characters]"},
            },
        ),
        (
            {"config": {"model": "gpt-4o", "template": [{"role": "system", "content": SECRET}], "top_p": 1}},
            {"model": "gpt-4o", "template": [{"role": "system", "content": "[6 characters]"}], "top_p": 1},
        ),
        (
            {"usage": {"total_tokens": 5, "details": {"cached": 2}}},
            {"total_tokens": 5, "details": {"cached": 2}},
        ),
        ({"metrics": {"score": 0.9, "why": SECRET}}, {"score": 0.9, "why": "[6 characters]"}),
        (
            {"feedback": {"rating": 5, "comment": SECRET, "ground_truth": {SECRET: SECRET}}},
            {
                "rating": 5,
                "comment": "[6 characters]",
                "ground_truth": {"omitted": "[1 member, 6 characters]"},
            },
        ),
        (
            {"metadata": {"customer": "acme", "prompt": SECRET, "ground_truth": SECRET}},
            {"customer": "acme", "prompt": "[6 characters]", "ground_truth": "[6 characters]"},
        ),
        ({"user_properties": {"plan": "free"}}, {"plan": "free"}),
        (
            {"metadata": {"request_metadata": [{"prompt": SECRET, "team": "hive"}]}},
            {"request_metadata": [{"prompt": "[6 characters]", "team": "hive"}]},
        ),
        ({"metadata": "acme"}, "acme"),
        ({"model": "gpt-4o"}, "gpt-4o"),
        ({"model": [SECRET]}, ["[1 item, 6 characters]"]),
        ({"event_name": {"content": SECRET}}, {"content": "[6 characters]"}),
        ({"children_ids": ["a", "b"]}, ["a", "b"]),
        ({"cost": 0.1}, 0.1),
    ],
)
def test_what_is_left(fields: dict[str, Any], left: Any) -> None:
    before = json.dumps(fields)
    (name,) = fields
    assert without_content(fields) == {name: left}
    assert json.dumps(fields) == before


def test_a_field_whose_name_is_no_name_goes_with_its_name() -> None:
    assert without_content({"you@x.org": SECRET, f"my {SECRET}": 1, "model": "m"}) == {
        "model": "m",
        "omitted": "[2 members, 6 characters]",
    }


def test_metadata_that_are_nested_deep_are_not_looked_into() -> None:
    nested: Any = {"team": SECRET}
    for _ in range(60):
        nested = {"a": [nested]}
    assert SECRET not in str(without_content({"metadata": nested}))


def test_content_that_is_nested_deep_is_not_looked_into() -> None:
    nested: Any = SECRET
    for _ in range(100_000):
        nested = {"content": nested}
    left = json.dumps(without_content({"messages": [nested], "metrics": {"a": {"b": nested}}}))
    assert "[nested]" in left
    assert SECRET not in left
    figures: Any = SECRET
    for _ in range(900):
        figures = {"a": figures}
    assert SECRET not in json.dumps(without_content({"metrics": figures}))


def test_of_real_events_no_word_of_content_is_left() -> None:
    kept = {
        "project",
        "model",
        "provider",
        "source",
        "event_name",
        "event_type",
        "metadata",
        "user_properties",
    }
    kept |= {"event_id", "session_id", "parent_id", "children_ids", "model_name", "model_version", "error"}
    corpus = (Path(__file__).parent.parent / "data" / "model_events.jsonl").read_text().splitlines()
    for line in corpus:
        event = json.loads(line)
        left = without_content(event)
        # Of a line of content any text with a space in it would be told by that.
        said = {text for name, value in left.items() if name not in kept for text in texts(value)}
        assert [text for text in said if " " in text and not text.startswith("[")] == []
        assert left.get("usage") == event.get("usage")
        assert {name: left.get(name) for name in ("model", "provider", "duration", "cost")} == {
            name: event.get(name) for name in ("model", "provider", "duration", "cost")
        }


class Kind(enum.Enum):
    A = SECRET


@pytest.mark.parametrize(
    "event",
    [
        {"model": "m", "messages": [Message(role="user", content=SECRET)]},
        {"model": "m", "messages": [Message(role="user", content=Message(role=SECRET, content=[SECRET]))]},
        {"model": "m", "messages": [Part(SECRET)], "response": {Kind.A: SECRET}, "outputs": Kind.A},
        MappingProxyType({"model": "m", "messages": ({"role": "user", "content": SECRET},)}),
        ModelEvent(model="m", messages=[{"role": "user", "content": SECRET}], response=SECRET),
        ModelEvent(model="m", messages=[Message(role="user", content=SECRET)], inputs={"a": b"sesame"}),
        Tagged(text=[{"role": "user", "content": SECRET}], model="m"),
        {"model": "m", "messages": {SECRET}, "response": {1: SECRET, (1, 2): SECRET}, "inputs": object()},
    ],
    ids=[
        "pydantic",
        "nested pydantic",
        "dataclass and enum",
        "Mapping",
        "ModelEvent",
        "bytes",
        "Struct",
        "odd",
    ],
)
def test_it_holds_whatever_the_event_is_made_of(event: Any) -> None:
    with capture() as events:
        batcher = Batcher(api_key="hh_test", capture_content=False, project="p")
        assert batcher.push(event)
    (left,) = events
    assert left["model"] == "m"
    assert left["project"] == "p"
    assert "messages" in left
    assert SECRET not in json.dumps(left)
    assert "c2VzYW1l" not in json.dumps(left)  # the same in base64


def test_a_cycle_goes_with_the_rest() -> None:
    event: dict[str, Any] = {"model": "m", "inputs": {"content": SECRET}}
    event["inputs"]["content"] = [event, SECRET]
    with capture() as events:
        batcher = Batcher(api_key="hh_test", capture_content=False)
        assert batcher.push(event)
    assert SECRET not in json.dumps(events)
    assert events[0]["model"] == "m"
    assert batcher.statistics().repaired > 0


def test_what_is_no_event_is_told_as_ever() -> None:
    batcher = Batcher(api_key="hh_test", capture_content=False)
    assert batcher.push(SECRET) is Admission.NOT_AN_EVENT
    assert batcher.push(Message(role="user", content=SECRET)) is Admission.NOT_AN_EVENT
    assert batcher.push(Row(SECRET)) is Admission.NOT_AN_EVENT


def test_an_event_that_cannot_be_read_does_not_leave() -> None:
    class Strange(dict[str, Any]):
        def get(self, *_: object) -> Any:
            raise ZeroDivisionError

    with capture() as events:
        batcher = Batcher(api_key="hh_test", capture_content=False)
        batcher.push(Strange(messages=[SECRET]))
    assert SECRET not in json.dumps(events)


def test_without_the_setting_everything_is_sent_as_it_is() -> None:
    with capture() as events:
        assert Batcher(api_key="hh_test").push({"model": "m", "response": SECRET})
    assert events[0]["response"] == SECRET
