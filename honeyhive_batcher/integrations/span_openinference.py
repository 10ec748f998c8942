"""OpenInference: flat `llm.*` keys."""

from collections.abc import Mapping
from typing import Any

from honeyhive_batcher.integrations.values import (
    cost,
    count,
    decoded,
    mapping,
    nested,
    one_or_all,
    text,
    tool_call,
    usage,
)

_OWN_FIELDS = ("model", "tools", "tool_choice", "response_format")
"""What stands among the invocation parameters and has a field of its own."""


def openinference_event(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the event of a model call, without its times and its error; None for any other span."""
    if attributes.get("openinference.span.kind") != "LLM":
        return None
    get = attributes.get
    parameters = mapping(get("llm.invocation_parameters"))
    own = {name: parameters.pop(name, None) for name in _OWN_FIELDS}
    answers = _messages(attributes, "llm.output_messages") or _texts(
        attributes, "llm.choices", "completion.text", "assistant"
    )
    finish_reason = text(get("llm.finish_reason"))
    if finish_reason and len(answers) == 1:
        answers[0]["finish_reason"] = finish_reason
    template = decoded(get("llm.prompt_template.template"))
    response_id = text(mapping(get("output.value")).get("id"))
    metadata = {**mapping(get("metadata")), **({"response_id": response_id} if response_id else {})}
    return {
        "model": text(get("llm.model_name"), own["model"]),
        "provider": text(get("llm.provider"), get("llm.system")),
        "messages": (
            _messages(attributes, "llm.input_messages")
            or _texts(attributes, "llm.prompts", "prompt.text", "user")
            or None
        ),
        "response": one_or_all(answers),
        "usage": _usage(attributes),
        "cost": cost(get("llm.cost.total")),
        "hyperparameters": parameters or None,
        "tools": _tools(attributes) or own["tools"],
        "tool_choice": own["tool_choice"],
        "response_format": mapping(own["response_format"]) or None,
        "template": template,
        "template_inputs": mapping(get("llm.prompt_template.variables")) or None,
        "session_id": text(get("session.id")),
        "user_properties": {"user_id": get("user.id")} if get("user.id") else None,
        "metadata": metadata or None,
    }


def _messages(attributes: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    return [_message(row) for row in nested(attributes, prefix)]


def _message(row: Mapping[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": row.get("message.role"), "content": row.get("message.content")}
    contents = [
        {key.removeprefix("message_content."): value for key, value in each.items()}
        for each in nested(row, "message.contents")
    ]
    if message["content"] is None and contents:
        is_text = len(contents) == 1 and contents[0].keys() <= {"type", "text"}
        message["content"] = contents[0].get("text") if is_text else contents
    calls = [
        tool_call(
            each.get("tool_call.id"),
            each.get("tool_call.function.name"),
            each.get("tool_call.function.arguments"),
        )
        for each in nested(row, "message.tool_calls")
    ]
    if calls:
        message["tool_calls"] = calls
    for name in ("tool_call_id", "name"):
        if (value := row.get(f"message.{name}")) is not None:
            message[name] = value
    return message


def _texts(attributes: Mapping[str, Any], prefix: str, key: str, role: str) -> list[dict[str, Any]]:
    """Return the texts of a completion model as messages."""
    return [{"role": role, "content": row[key]} for row in nested(attributes, prefix) if key in row]


def _usage(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    get = attributes.get
    prefix = "llm.token_count."
    return usage(
        count(get(f"{prefix}prompt")),
        count(get(f"{prefix}completion")),
        count(get(f"{prefix}total")),
        {
            "cached_tokens": count(get(f"{prefix}prompt_details.cache_read")),
            "cache_creation_tokens": count(get(f"{prefix}prompt_details.cache_write")),
        },
        {"reasoning_tokens": count(get(f"{prefix}completion_details.reasoning"))},
    )


def _tools(attributes: Mapping[str, Any]) -> list[Any]:
    key = "tool.json_schema"
    return [decoded(row[key]) for row in nested(attributes, "llm.tools") if key in row]
