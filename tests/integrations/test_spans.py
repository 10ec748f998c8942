"""Spans that the real instrumentations wrote, and what is made of them."""

import json
from typing import Any

import msgspec
import pytest

from honeyhive_batcher.integrations.spans import answer_id, model_event
from tests.integrations.record_spans import FAMILIES, RECORDED

BRIEF = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is in a hive?"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": {"word": "hive"}}}
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 7,
    "total_tokens": 19,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def recorded(family: str) -> list[dict[str, Any]]:
    spans: list[dict[str, Any]] = json.loads((RECORDED / f"{family}.json").read_text())
    return spans


def event_of(span: dict[str, Any]) -> dict[str, Any] | None:
    """Return the event of a recorded span, with the arguments of tools read, which are spaced variously."""
    error = (span["description"] or "") if span["status"] == "ERROR" else None
    event = model_event(span["attributes"], start_time=1_000_000_000, end_time=1_250_000_000, error=error)
    if event is not None:
        for message in [*event.get("messages", []), event.get("response", {})]:
            for call in message.get("tool_calls", []):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return event


def events(family: str) -> list[dict[str, Any]]:
    return [event for span in recorded(family) if (event := event_of(span)) is not None]


def answered(family: str, answer: str) -> dict[str, Any]:
    """Return the one event of an answer whose id begins like this."""
    found = [e for e in events(family) if e.get("metadata", {}).get("response_id", "").startswith(answer)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_only_model_calls_give_an_event(family: str) -> None:
    others = {span["name"] for span in recorded(family) if event_of(span) is None}
    calls = {span["name"] for span in recorded(family) if event_of(span) is not None}
    assert calls
    assert others
    assert not any(word in name.lower() for name in calls for word in ("embed", "agent", "tool"))
    assert all(any(word in name.lower() for word in ("embed", "agent", "tool")) for name in others)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_event_says_when_it_was_and_who_answered(family: str) -> None:
    for event in events(family):
        assert (event["start_time"], event["end_time"], event["duration"]) == (1000.0, 1250.0, 250.0)
        assert event["provider"] == "openai"
        assert event["model"] in ("good-2026", "good", "fails-429")


@pytest.mark.parametrize("family", ["genai", "traceloop", "openinference"])
def test_the_families_tell_the_same_of_the_same_call(family: str) -> None:
    plain, streamed, tools, after_tool, failed, *_rest = events(family)
    for event in (plain, streamed):
        assert event["messages"] == BRIEF
        response = {"role": "assistant", "content": "Bees make honey in a hive.", "finish_reason": "stop"}
        assert event["response"] == response
        assert {**event["usage"], "completion_tokens_details": None} == {
            **USAGE,
            "completion_tokens_details": None,
        }
        assert event["model"] == "good-2026"
        assert "error" not in event
    assert plain["hyperparameters"].items() >= {"temperature": 0.5, "max_tokens": 10}.items()
    assert tools["response"]["tool_calls"] == [CALL]
    assert tools["tools"][0]["function"]["name"] == "look_up"
    assert after_tool["messages"][2] == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert after_tool["messages"][3] == {
        "role": "tool",
        "tool_call_id": "call_1",
        "content": "a home of bees",
    }
    assert after_tool["response_format"]["type"].startswith("json")
    assert failed["error"] == "RateLimitError: Error code: 429 - too many bees"
    assert failed["messages"] == BRIEF[1:]
    assert "response" not in failed
    assert "usage" not in failed


@pytest.mark.parametrize("family", ["genai", "traceloop", "openinference"])
def test_the_responses_api_is_a_model_call(family: str) -> None:
    event = answered(family, "resp_")
    assert event["messages"] == BRIEF
    assert event["response"]["content"] == "Bees make honey in a hive."


@pytest.mark.parametrize("family", ["traceloop", "openinference"])
def test_a_completion_is_a_model_call(family: str) -> None:
    event = answered(family, "cmpl-")
    assert event["messages"] == [{"role": "user", "content": "Say honey"}]
    assert event["response"]["content"] == "Bees make honey in a hive."


def test_pydantic_ai_gives_the_session_of_its_run() -> None:
    whole, streamed, *with_tool, failed = events("pydantic_ai")
    assert whole["messages"] == BRIEF == streamed["messages"]
    assert whole["usage"].items() >= USAGE.items()
    assert whole["session_id"] == whole["metadata"]["conversation_id"] != streamed["session_id"]
    assert whole["hyperparameters"] == {"temperature": 0.5}
    assert [each["response"]["tool_calls"] for each in with_tool] == [[CALL], [CALL]]
    assert with_tool[1]["messages"][-1]["role"] == "tool"
    assert "429" in failed["error"]


def test_openinference_gives_the_session_that_the_program_named() -> None:
    assert {event["session_id"] for event in events("openinference")} == {"a-session"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_id_is_the_providers(family: str) -> None:
    for span in recorded(family):
        event = event_of(span)
        if event is not None:
            found = answer_id(span["attributes"], event)
            assert (found is None) is ("error" in event)
            assert found is None or found.startswith(("chatcmpl-", "cmpl-", "resp_"))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_event_can_be_encoded_and_is_new_each_time(family: str) -> None:
    for span in recorded(family):
        before = json.dumps(span)
        assert event_of(span) == event_of(span)
        msgspec.json.encode(event_of(span))
        assert json.dumps(span) == before


GENAI = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "good"}


def test_costs_are_kept() -> None:
    for name in ("operation.cost", "gen_ai.usage.cost", "llm.cost.total"):
        assert (model_event({**GENAI, name: 0.25}) or {})["cost"] == 0.25
    told = model_event({"openinference.span.kind": "LLM", "llm.cost.total": 1})
    assert told == {"event_type": "model", "cost": 1.0}
    assert "cost" not in (model_event({**GENAI, "operation.cost": "free"}) or {})


def test_sessions_have_an_order() -> None:
    names = ["session.id", "traceloop.association.properties.session_id", "gen_ai.conversation.id"]
    attributes: dict[str, Any] = {**GENAI, **{name: name for name in names}}
    for name in names:
        assert (model_event(attributes) or {})["session_id"] == name
        del attributes[name]


def test_traceloops_older_keys_are_read() -> None:
    event = model_event(
        {
            "llm.request.type": "chat",
            "gen_ai.system": "OpenAI",
            "gen_ai.request.model": "good",
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": '[{"type": "text", "text": "What is in a hive?"}]',
            "gen_ai.prompt.1.role": "assistant",
            "gen_ai.prompt.1.tool_calls.0.id": "call_1",
            "gen_ai.prompt.1.tool_calls.0.name": "look_up",
            "gen_ai.prompt.1.tool_calls.0.arguments": '{"word": "hive"}',
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": "Honey.",
            "gen_ai.completion.0.finish_reason": "stop",
            "gen_ai.usage.prompt_tokens": 12,
            "gen_ai.usage.completion_tokens": 7,
            "llm.usage.total_tokens": 19,
            "llm.request.functions.0.name": "look_up",
            "llm.request.functions.0.parameters": '{"type": "object"}',
        }
    )
    assert event == {
        "event_type": "model",
        "model": "good",
        "provider": "openai",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "What is in a hive?"}]},
            {
                "role": "assistant",
                "tool_calls": [CALL | {"function": {"name": "look_up", "arguments": '{"word": "hive"}'}}],
            },
        ],
        "response": {"role": "assistant", "content": "Honey.", "finish_reason": "stop"},
        "usage": {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19},
        "tools": [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}],
    }


def test_a_workflow_of_traceloops_is_no_model_call() -> None:
    assert model_event({**GENAI, "traceloop.span.kind": "workflow"}) is None


def test_instructions_parts_and_several_answers() -> None:
    parts = [
        {"type": "reasoning", "content": "Hm."},
        {"type": "text", "content": "See"},
        {"type": "blob", "mime_type": "image/png", "content": "aGl2ZQ=="},
        "a part that is none",
    ]
    answers = [{"role": "assistant", "parts": [{"type": "text", "content": word}]} for word in ("one", "two")]
    event = model_event(
        {
            **GENAI,
            "gen_ai.system_instructions": '[{"type": "text", "content": "Be brief."}]',
            "gen_ai.input.messages": [
                {"role": "user", "parts": parts},
                "plain",
                {"role": "user", "content": "hi"},
            ],
            "gen_ai.output.messages": answers,
            "gen_ai.request.stop_sequences": ("\n",),
            "gen_ai.request.choice.count": 2,
            "gen_ai.tool.definitions": [
                {"type": "web_search", "name": "s"},
                {"type": "function", "function": {}},
                1,
            ],
        }
    )
    assert event is not None
    assert event["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "See"}, *parts[2:]], "reasoning": "Hm."},
        {"role": "user", "content": "plain"},
        {"role": "user", "content": "hi"},
    ]
    assert event["response"] == [
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]
    assert event["hyperparameters"] == {"stop": ["\n"], "n": 2}
    assert event["tools"] == [{"type": "web_search", "name": "s"}, {"type": "function", "function": {}}, 1]


def test_openinference_images_templates_and_users() -> None:
    event = model_event(
        {
            "openinference.span.kind": "LLM",
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.name": "beekeeper",
            "llm.input_messages.0.message.contents.0.message_content.type": "text",
            "llm.input_messages.0.message.contents.0.message_content.text": "See",
            "llm.input_messages.0.message.contents.1.message_content.type": "image",
            "llm.input_messages.0.message.contents.1.message_content.image.image.url": "https://hive",
            "llm.invocation_parameters": json.dumps(
                {"model": "good", "tools": [{"a": 1}], "tool_choice": "auto", "top_p": 1}
            ),
            "llm.prompt_template.template": "What is in a {thing}?",
            "llm.prompt_template.variables": '{"thing": "hive"}',
            "user.id": "u1",
            "metadata": '{"team": "bees"}',
        }
    )
    assert event == {
        "event_type": "model",
        "model": "good",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "See"},
                    {"type": "image", "image.image.url": "https://hive"},
                ],
                "name": "beekeeper",
            }
        ],
        "hyperparameters": {"top_p": 1},
        "tools": [{"a": 1}],
        "tool_choice": "auto",
        "template": "What is in a {thing}?",
        "template_inputs": {"thing": "hive"},
        "user_properties": {"user_id": "u1"},
        "metadata": {"team": "bees"},
    }


@pytest.mark.parametrize(
    ("error", "kind", "expected"),
    [
        (None, None, None),
        ("", None, "the call failed"),
        ("slow down", None, "slow down"),
        ("slow down", "_OTHER", "slow down"),
        ("slow down", "openai.RateLimitError", "RateLimitError: slow down"),
        ("RateLimitError: slow down", "openai.RateLimitError", "RateLimitError: slow down"),
        ("", "openai.RateLimitError", "RateLimitError"),
        (None, "timeout", "timeout"),
    ],
)
def test_an_error_has_a_kind_and_a_message(error: str | None, kind: str | None, expected: str | None) -> None:
    attributes = GENAI if kind is None else {**GENAI, "error.type": kind}
    assert (model_event(attributes, error=error) or {}).get("error") == expected


@pytest.mark.parametrize(
    "rubbish",
    [
        {
            "gen_ai.input.messages": "{not json",
            "gen_ai.output.messages": "7",
            "gen_ai.tool.definitions": "{}",
        },
        {
            "gen_ai.usage.input_tokens": "many",
            "gen_ai.usage.output_tokens": -1,
            "gen_ai.usage.total_tokens": True,
        },
        {"gen_ai.prompt.99999.role": "user", "gen_ai.prompt.x.role": "user", "gen_ai.prompt": "hello"},
        {"gen_ai.request.model": 7, "gen_ai.provider.name": "", "session.id": 5},
    ],
)
def test_rubbish_is_left_out(rubbish: dict[str, Any]) -> None:
    event = model_event({"gen_ai.operation.name": "chat", **rubbish})
    assert event == {"event_type": "model"}
