"""OpenTelemetry's conventions for generative AI, the older ones of Traceloop included."""

from collections.abc import Iterator, Mapping
from typing import Any

from honeyhive_batcher.integrations.values import (
    cost,
    count,
    decoded,
    items,
    mapping,
    nested,
    one_or_all,
    text,
    tool_call,
    usage,
)

_MODEL_CALLS = {"chat", "text_completion", "generate_content", "completion"}
_REQUEST = "gen_ai.request."
_NO_PARAMETERS = {"model", "structured_output_schema", "type"}
"""What stands among the parameters of a request and has a field of its own."""
_TRACELOOP_SESSION = "traceloop.association.properties.session_id"
_PARAMETER_NAMES = {"choice.count": "n", "stop_sequences": "stop"}


def genai_event(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the event of a model call, without its times and its error; None for any other span."""
    operation = attributes.get("gen_ai.operation.name") or attributes.get("llm.request.type")
    if operation not in _MODEL_CALLS or "traceloop.span.kind" in attributes:
        return None
    get = attributes.get
    messages = [*_instructions(get("gen_ai.system_instructions")), *_messages(attributes, "input", "prompt")]
    schema = get("gen_ai.request.structured_output_schema")
    kind = get("gen_ai.output.type")
    parameters = {
        _PARAMETER_NAMES.get(name, name): list(value) if isinstance(value, tuple) else value
        for key, value in attributes.items()
        if key.startswith(_REQUEST)
        if (name := key[len(_REQUEST) :]) not in _NO_PARAMETERS
    }
    response_id = text(get("gen_ai.response.id"))
    conversation = text(get("gen_ai.conversation.id"))
    metadata = {"response_id": response_id, "conversation_id": conversation}
    return {
        "model": text(get("gen_ai.response.model"), get("gen_ai.request.model")),
        "provider": _provider(text(get("gen_ai.provider.name"), get("gen_ai.system"))),
        "messages": messages or None,
        "response": one_or_all(_answers(attributes)),
        "usage": _usage(attributes),
        "cost": cost(get("operation.cost"), get("gen_ai.usage.cost"), get("llm.cost.total")),
        "hyperparameters": parameters or None,
        "tools": _tools(attributes) or None,
        "response_format": mapping(schema) or ({"type": kind} if isinstance(kind, str) else None),
        "session_id": text(get("session.id"), get(_TRACELOOP_SESSION), conversation),
        "metadata": {name: value for name, value in metadata.items() if value is not None} or None,
    }


def _provider(name: str | None) -> str | None:
    return None if name is None else name.lower()  # Traceloop once wrote "OpenAI"


def _instructions(value: Any) -> Iterator[dict[str, Any]]:
    parts = items(value)
    if parts:
        yield from _of_parts({"role": "system"}, parts)


def _messages(attributes: Mapping[str, Any], kind: str, older: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for message in items(attributes.get(f"gen_ai.{kind}.messages")):
        if not isinstance(message, Mapping):
            found.append({"role": "user", "content": message})
            continue
        head = {key: value for key, value in message.items() if key != "parts" and value is not None}
        parts = message.get("parts")
        found.extend(_of_parts(head, parts) if isinstance(parts, list) else [head])
    return found or [_older(row) for row in nested(attributes, f"gen_ai.{older}")]


def _answers(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _messages(attributes, "output", "completion")


def _of_parts(head: dict[str, Any], parts: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield a message written in parts as chat messages: each result of a tool is one of its own."""
    content: list[Any] = []
    reasoning: list[Any] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            content.append({"type": "text", "text": part.get("content")})
        elif kind == "tool_call":
            calls.append(tool_call(part.get("id"), part.get("name"), part.get("arguments")))
        elif kind == "tool_call_response":
            answer = part.get("response", part.get("result"))
            results.append({"role": "tool", "tool_call_id": part.get("id"), "content": answer})
        elif kind in ("reasoning", "thinking"):
            reasoning.append(part.get("content"))
        else:
            content.append(part)
    yield from results
    if content or calls or reasoning or not results:
        message = {**head, "content": _flat(content)}
        if reasoning:
            message["reasoning"] = "".join(str(each) for each in reasoning)
        if calls:
            message["tool_calls"] = calls
        yield message


def _flat(content: list[Any]) -> Any:
    """Return one text as such, as most people write it."""
    if not content:
        return None
    is_text = len(content) == 1 and isinstance(content[0], Mapping) and content[0].get("type") == "text"
    return content[0].get("text") if is_text else content


def _older(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message of Traceloop's flat keys: `role`, `content`, `tool_calls.0.name` and so on."""
    message = {key: value for key, value in row.items() if not key.startswith("tool_calls.")}
    content = decoded(message.get("content"))
    if isinstance(content, list):
        message["content"] = content
    calls = [
        tool_call(each.get("id"), each.get("name"), each.get("arguments"))
        for each in nested(row, "tool_calls")
    ]
    return message | ({"tool_calls": calls} if calls else {})


def _usage(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    get = attributes.get
    prefix = "gen_ai.usage."
    return usage(
        count(get(f"{prefix}input_tokens"), get(f"{prefix}prompt_tokens")),
        count(get(f"{prefix}output_tokens"), get(f"{prefix}completion_tokens")),
        count(get(f"{prefix}total_tokens"), get("llm.usage.total_tokens")),
        {
            "cached_tokens": count(
                get(f"{prefix}cache_read.input_tokens"), get(f"{prefix}cache_read_input_tokens")
            ),
            "cache_creation_tokens": count(
                get(f"{prefix}cache_creation.input_tokens"), get(f"{prefix}cache_creation_input_tokens")
            ),
        },
        {
            "reasoning_tokens": count(
                get(f"{prefix}reasoning.output_tokens"), get(f"{prefix}reasoning_tokens")
            )
        },
    )


def _tools(attributes: Mapping[str, Any]) -> list[Any]:
    given = items(attributes.get("gen_ai.tool.definitions"))
    if given:
        return [_tool(each) for each in given]
    return [
        _tool({**row, "parameters": decoded(row.get("parameters"))})
        for row in nested(attributes, "llm.request.functions")
    ]


def _tool(definition: Any) -> Any:
    """Return a tool as OpenAI's chat writes it; what looks otherwise as it is."""
    if not isinstance(definition, Mapping) or "function" in definition or "name" not in definition:
        return definition
    if definition.get("type", "function") != "function":
        return definition
    return {"type": "function", "function": {k: v for k, v in definition.items() if k != "type"}}
