"""OpenAI's responses."""

from collections.abc import Iterable, Mapping
from typing import Any, final

from honeyhive_batcher.integrations.deltas import joined, merge
from honeyhive_batcher.integrations.dialect import Assembly
from honeyhive_batcher.integrations.values import count, failure, parameters, present, text, tool_call, usage

_FIELDS = ("model", "input", "instructions", "tools", "tool_choice", "text", "prompt")
_NO_PARAMETERS = {
    *_FIELDS,
    "stream",
    "stream_options",
    "metadata",
    "user",
    "store",
    "previous_response_id",
    "conversation",
}
_WHOLE = {"response.completed", "response.incomplete", "response.failed"}
_PARTS = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "text",
    "response.reasoning_summary_text.delta": "text",
}
"""Deltas of a part of an item, and what of it they continue."""
_TYPES = {
    "response.output_text.delta": "output_text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning_text",
    "response.reasoning_summary_text.delta": "summary_text",
}


@final
class Responses:
    """`POST /responses`."""

    name = "responses"

    def request_fields(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that the body of a request tells."""
        asked = body.get("input")
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else list(asked or ())
        if body.get("instructions"):
            messages = [{"role": "system", "content": body["instructions"]}, *messages]
        written = body.get("text")
        prompt = body.get("prompt")
        conversation = body.get("conversation")
        return {
            "model": text(body.get("model")),
            "messages": messages,
            "hyperparameters": parameters(body, _NO_PARAMETERS),
            "tools": body.get("tools") or None,
            "tool_choice": body.get("tool_choice"),
            "response_format": written.get("format") if isinstance(written, Mapping) else None,
            "template": prompt.get("id") if isinstance(prompt, Mapping) else None,
            "template_inputs": prompt.get("variables") if isinstance(prompt, Mapping) else None,
            "user_properties": {"user_id": body["user"]} if body.get("user") else None,
            "metadata": present(
                {
                    "request_metadata": body.get("metadata"),
                    "previous_response_id": body.get("previous_response_id"),
                    "conversation_id": conversation.get("id")
                    if isinstance(conversation, Mapping)
                    else conversation,
                }
            ),
        }

    def answer_fields(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that an answer tells."""
        details = answer.get("incomplete_details") or {}
        error = answer.get("error")
        return {
            "model": text(answer.get("model")),
            "response": _message(answer.get("output") or ()),
            "usage": _usage(answer.get("usage") or {}),
            "error": failure(error.get("message"), error.get("code")) if isinstance(error, Mapping) else None,
            "metadata": present(
                {
                    "response_id": answer.get("id"),
                    "status": answer.get("status"),
                    "incomplete_reason": details.get("reason"),
                }
            ),
        }

    def assembly(self) -> Assembly:
        """Return what puts a streamed answer together."""
        return _Events()


@final
class _Events:
    """Events of one response."""

    def __init__(self) -> None:
        self.is_complete = False
        self.error: str | None = None
        self._response: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take the data of one more event."""
        kind = chunk.get("type")
        if kind == "error" or chunk.get("error"):
            said = chunk.get("error") or chunk
            self.error = (
                failure(said.get("message"), said.get("code") or said.get("type")) or "the stream failed"
            )
        elif isinstance(chunk.get("response"), Mapping):
            self._response = dict(chunk["response"])
            self.is_complete = kind in _WHOLE
        elif "output_index" in chunk:
            self._take(str(kind), chunk, self._items.setdefault(chunk["output_index"], {}))

    def _take(self, kind: str, chunk: Mapping[str, Any], item: dict[str, Any]) -> None:
        if isinstance(chunk.get("item"), Mapping):
            item.clear()
            item.update(chunk["item"])
            if kind == "response.output_item.added":
                # They come again, in parts.
                item.pop("content", None)
                item.pop("arguments", None)
        elif kind == "response.function_call_arguments.delta":
            merge(item, {"arguments": chunk.get("delta")})
        elif kind in _PARTS:
            place = chunk.get("content_index", chunk.get("summary_index", 0))
            part = {"index": place, "type": _TYPES[kind], _PARTS[kind]: chunk.get("delta")}
            merge(item, {"summary" if "summary" in kind else "content": [part]})

    def finish(self) -> None:
        """Take `[DONE]`, which nobody sends here."""

    def answer(self) -> dict[str, Any]:
        """Return what has come, in the shape of an answer that is not streamed."""
        if self.is_complete or not (self._items or self._response):
            return self._response
        return {**self._response, "output": [joined(self._items[place]) for place in sorted(self._items)]}


def _message(output: Iterable[Any]) -> dict[str, Any] | None:
    """Return the items of an output as one message of OpenAI's chat; other items are kept as `items`."""
    texts: list[str] = []
    refusals: list[str] = []
    reasoning: list[str] = []
    calls: list[dict[str, Any]] = []
    others: list[Any] = []
    for item in output:
        kind = item.get("type")
        if kind == "message":
            for part in item.get("content") or ():
                if part.get("type") == "refusal":
                    refusals.append(part.get("refusal") or "")
                else:
                    texts.append(part.get("text") or "")
        elif kind == "function_call":
            calls.append(tool_call(item.get("call_id"), item.get("name"), item.get("arguments")))
        elif kind == "reasoning":
            parts = [*(item.get("summary") or ()), *(item.get("content") or ())]
            reasoning.extend(part.get("text") or "" for part in parts)
        else:
            others.append(item)
    if not (texts or refusals or reasoning or calls or others):
        return None
    found = {
        "refusal": "".join(refusals) or None,
        "reasoning": "\n".join(reasoning) or None,
        "tool_calls": calls or None,
        "items": others or None,
    }
    return {"role": "assistant", "content": "".join(texts) if texts else None, **(present(found) or {})}


def _usage(counts: Mapping[str, Any]) -> dict[str, Any] | None:
    return usage(
        count(counts.get("input_tokens")),
        count(counts.get("output_tokens")),
        count(counts.get("total_tokens")),
        counts.get("input_tokens_details") or {},
        counts.get("output_tokens_details") or {},
    )
