"""What the fake provider answers: bodies and streamed events, in the shapes that providers document."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

TEXT = "Bees make honey in a hive."
STRUCTURED = '{"answer": "honey"}'
TOOL, ARGUMENTS = "look_up", '{"word": "hive"}'

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 7,
    "total_tokens": 19,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
RESPONSES_USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 19,
}
MESSAGES_USAGE = {
    "input_tokens": 12,
    "cache_read_input_tokens": 4,
    "cache_creation_input_tokens": 3,
    "output_tokens": 7,
}

_numbers = itertools.count(1)


def _text_for(body: dict[str, Any]) -> str:
    is_structured = "response_format" in body or "format" in body.get("text", {}) or "output_config" in body
    return STRUCTURED if is_structured else TEXT


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [word if place == 0 else " " + word for place, word in enumerate(words)]


def chat(body: dict[str, Any]) -> dict[str, Any]:
    """Return a chat completion; with tools in the body, one that calls one."""
    message: dict[str, Any] = {"role": "assistant", "content": _text_for(body), "refusal": None}
    finish_reason = "stop"
    if body.get("tools"):
        call = {"id": "call_1", "type": "function", "function": {"name": TOOL, "arguments": ARGUMENTS}}
        message |= {"content": None, "tool_calls": [call]}
        finish_reason = "tool_calls"
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason}
        for index in range(body.get("n") or 1)
    ]
    return {
        "id": f"chatcmpl-{next(_numbers)}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": f"{body['model']}-2026",
        "choices": choices,
        "usage": USAGE,
        "system_fingerprint": "fp_1",
    }


def chat_stream(body: dict[str, Any]) -> Iterator[str]:
    """Yield the same in chunks: with usage only where the body asks for it, as the real one does."""
    whole = chat(body)
    head = {key: whole[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], index: int = 0, finish_reason: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _data(head | {"choices": [choice]})

    for choice in whole["choices"]:
        index, message = choice["index"], choice["message"]
        if message["content"] is None:
            call = {"id": "call_1", "type": "function", "function": {"name": TOOL, "arguments": ""}}
            yield chunk({"role": "assistant", "content": None, "tool_calls": [{"index": 0, **call}]}, index)
            for piece in _pieces(ARGUMENTS):
                yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}, index)
        else:
            yield chunk({"role": "assistant", "content": ""}, index)
            for piece in _pieces(message["content"]):
                yield chunk({"content": piece}, index)
        yield chunk({}, index, choice["finish_reason"])
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _data(head | {"choices": [], "usage": USAGE})
    yield "data: [DONE]\n\n"


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of the old completions endpoint."""
    return {
        "id": f"cmpl-{next(_numbers)}",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": f"{body['model']}-2026",
        "choices": [{"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
    }


def completion_stream(body: dict[str, Any]) -> Iterator[str]:
    """Yield the same in pieces."""
    whole = completion(body)
    whole.pop("usage")
    for piece in _pieces(TEXT):
        yield _data(
            whole | {"choices": [{"index": 0, "text": piece, "logprobs": None, "finish_reason": None}]}
        )
    yield _data(whole | {"choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]})
    yield "data: [DONE]\n\n"


def response(body: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of the responses endpoint."""
    number = next(_numbers)
    item: dict[str, Any] = {
        "type": "message",
        "id": f"msg_{number}",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": _text_for(body), "annotations": []}],
    }
    if body.get("tools"):
        item = {
            "type": "function_call",
            "id": f"fc_{number}",
            "call_id": "call_1",
            "name": TOOL,
            "arguments": ARGUMENTS,
            "status": "completed",
        }
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "model": f"{body['model']}-2026",
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "text": body.get("text") or {"format": {"type": "text"}},
        "temperature": 1.0,
        "top_p": 1.0,
        "usage": RESPONSES_USAGE,
        "metadata": {},
    }


def response_stream(body: dict[str, Any]) -> Iterator[str]:
    """Yield the events of the responses endpoint."""
    whole = response(body)
    order = itertools.count()

    def event(kind: str, **fields: Any) -> str:
        return _data({"type": kind, "sequence_number": next(order), **fields}, kind)

    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    (item,) = whole["output"]
    place = {"output_index": 0, "item_id": item["id"]}
    if item["type"] == "function_call":
        yield event("response.output_item.added", output_index=0, item=item | {"arguments": ""})
        for piece in _pieces(ARGUMENTS):
            yield event("response.function_call_arguments.delta", delta=piece, **place)
        yield event("response.function_call_arguments.done", arguments=ARGUMENTS, name=TOOL, **place)
    else:
        (part,) = item["content"]
        place |= {"content_index": 0}
        yield event("response.output_item.added", output_index=0, item=item | {"content": []})
        yield event("response.content_part.added", part=part | {"text": ""}, **place)
        for piece in _pieces(part["text"]):
            yield event("response.output_text.delta", delta=piece, logprobs=[], **place)
        yield event("response.output_text.done", text=part["text"], logprobs=[], **place)
        yield event("response.content_part.done", part=part, **place)
    yield event("response.output_item.done", output_index=0, item=item)
    yield event("response.completed", response=whole)


def message(body: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of Anthropic's messages endpoint; with tools, text and a call of one."""
    content: list[dict[str, Any]] = [{"type": "text", "text": _text_for(body)}]
    if body.get("tools"):
        content.append({"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": json.loads(ARGUMENTS)})
    return {
        "id": f"msg_{next(_numbers)}",
        "type": "message",
        "role": "assistant",
        "model": f"{body['model']}-2026",
        "content": content,
        "stop_reason": "tool_use" if body.get("tools") else "end_turn",
        "stop_sequence": None,
        "usage": MESSAGES_USAGE,
    }


def message_stream(body: dict[str, Any]) -> Iterator[str]:
    """Yield the events of Anthropic's messages endpoint."""
    whole = message(body)

    def event(kind: str, **fields: Any) -> str:
        return _data({"type": kind, **fields}, kind)

    begun: dict[str, Any] = {
        "content": [],
        "stop_reason": None,
        "usage": MESSAGES_USAGE | {"output_tokens": 1},
    }
    yield event("message_start", message=whole | begun)
    yield event("ping")
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            yield event("content_block_start", index=index, content_block=block | {"text": ""})
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        else:
            yield event("content_block_start", index=index, content_block=block | {"input": {}})
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _pieces(ARGUMENTS)]
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield event("message_delta", delta=ending, usage={"output_tokens": MESSAGES_USAGE["output_tokens"]})
    yield event("message_stop")


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """Return a vector, which is no model call to us."""
    vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"object": "list", "model": body["model"], "data": [vector], "usage": usage}


def _data(value: dict[str, Any], event: str = "") -> str:
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(value)}\n\n"
