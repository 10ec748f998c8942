"""Anthropic's messages."""

from collections.abc import Iterable, Mapping
from typing import Any, final

from honeyhive_batcher.integrations.deltas import joined, merge
from honeyhive_batcher.integrations.dialect import Assembly
from honeyhive_batcher.integrations.values import count, failure, parameters, present, text, tool_call, usage

_FIELDS = ("model", "messages", "system", "tools", "tool_choice", "output_config", "output_format")
_NO_PARAMETERS = {*_FIELDS, "stream", "metadata"}
_TEXTS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("partial_json", "input"),
}
"""Deltas of a block: where their text stands, and what of the block it continues."""


@final
class Messages:
    """`POST /v1/messages`."""

    name = "messages"

    def request_fields(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that the body of a request tells."""
        messages = list(body.get("messages") or ())
        if body.get("system"):
            messages = [{"role": "system", "content": body["system"]}, *messages]
        config = body.get("output_config")
        wanted = config.get("format") if isinstance(config, Mapping) else body.get("output_format")
        about = body.get("metadata")
        return {
            "model": text(body.get("model")),
            "messages": messages,
            "hyperparameters": parameters(body, _NO_PARAMETERS),
            "tools": body.get("tools") or None,
            "tool_choice": body.get("tool_choice"),
            "response_format": wanted if isinstance(wanted, Mapping) else None,
            "user_properties": present(about) if isinstance(about, Mapping) else None,
        }

    def answer_fields(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that an answer tells."""
        message = _message(answer.get("content") or ())
        if message is not None and answer.get("stop_reason"):
            message["finish_reason"] = answer["stop_reason"]
        return {
            "model": text(answer.get("model")),
            "response": message,
            "usage": _usage(answer.get("usage") or {}),
            "metadata": present({"response_id": answer.get("id")}),
        }

    def assembly(self) -> Assembly:
        """Return what puts a streamed answer together."""
        return _Events()


@final
class _Events:
    """Events of one message."""

    def __init__(self) -> None:
        self.is_complete = False
        self.error: str | None = None
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take the data of one more event."""
        kind = chunk.get("type")
        if kind == "message_start":
            self._message = dict(chunk["message"])
        elif kind == "content_block_start":
            block = dict(chunk["content_block"])
            if block.get("input") == {}:
                del block["input"]  # it comes in pieces of JSON text
            self._blocks[chunk["index"]] = block
        elif kind == "content_block_delta":
            delta = chunk["delta"]
            if delta.get("type") in _TEXTS:
                place, name = _TEXTS[delta["type"]]
                merge(self._blocks.setdefault(chunk["index"], {}), {name: delta.get(place)})
        elif kind == "message_delta":
            self._message |= chunk.get("delta") or {}
            counted = {k: v for k, v in (chunk.get("usage") or {}).items() if v is not None}
            self._message["usage"] = {**(self._message.get("usage") or {}), **counted}
        elif kind == "message_stop":
            self.is_complete = True
        elif kind == "error":
            said = chunk.get("error") or {}
            self.error = failure(said.get("message"), said.get("type")) or "the stream failed"

    def finish(self) -> None:
        """Take `[DONE]`, which nobody sends here."""

    def answer(self) -> dict[str, Any]:
        """Return what has come, in the shape of an answer that is not streamed."""
        if not self._message:
            return {}
        return {**self._message, "content": [joined(self._blocks[place]) for place in sorted(self._blocks)]}


def _message(content: Iterable[Any]) -> dict[str, Any] | None:
    """Return blocks as one message of OpenAI's chat; what has no place in one is kept as `blocks`."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    others: list[Any] = []
    for block in content:
        kind = block.get("type")
        if kind == "text":
            texts.append(block.get("text") or "")
        elif kind == "thinking":
            thoughts.append(block.get("thinking") or "")
        elif kind == "tool_use":
            calls.append(tool_call(block.get("id"), block.get("name"), block.get("input", {})))
        else:
            others.append(block)
    if not (texts or thoughts or calls or others):
        return None
    found = {
        "reasoning": "".join(thoughts) or None,
        "tool_calls": calls or None,
        "blocks": others or None,
    }
    return {"role": "assistant", "content": "".join(texts) if texts else None, **(present(found) or {})}


def _usage(counts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return counts by OpenAI's names. What Anthropic counts as input does not include what its cache did."""
    fresh, written = count(counts.get("input_tokens")), count(counts.get("cache_creation_input_tokens"))
    read = count(counts.get("cache_read_input_tokens"))
    prompt = None if fresh is None else fresh + (written or 0) + (read or 0)
    return usage(
        prompt,
        count(counts.get("output_tokens")),
        None,
        {"cached_tokens": read, "cache_creation_tokens": written},
        {},
    )
