"""OpenAI's chat completions, and its older completions, which most other providers speak as well."""

from collections.abc import Mapping
from typing import Any, final

from honeyhive_batcher.integrations.deltas import joined, merge
from honeyhive_batcher.integrations.dialect import Assembly
from honeyhive_batcher.integrations.values import failure, one_or_all, parameters, present, text

_FIELDS = ("model", "messages", "tools", "tool_choice", "response_format")
_NO_PARAMETERS = {*_FIELDS, "prompt", "stream", "stream_options", "metadata", "user", "store"}


@final
class ChatCompletions:
    """`POST /chat/completions`."""

    name = "chat.completions"

    def request_fields(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that the body of a request tells."""
        return _request_fields(body) | {"messages": list(body.get("messages") or ())}

    def answer_fields(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that an answer tells."""
        return _answer_fields(answer, [_message(each) for each in answer.get("choices") or ()])

    def assembly(self) -> Assembly:
        """Return what puts a streamed answer together."""
        return _Chunks("delta", "message")


@final
class Completions:
    """`POST /completions`."""

    name = "completions"

    def request_fields(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that the body of a request tells. A prompt that is no text stays what it is."""
        return _request_fields(body) | {"messages": [{"role": "user", "content": body.get("prompt")}]}

    def answer_fields(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that an answer tells."""
        messages = [
            _message(each | {"message": {"role": "assistant", "content": each.get("text")}})
            for each in answer.get("choices") or ()
        ]
        return _answer_fields(answer, messages)

    def assembly(self) -> Assembly:
        """Return what puts a streamed answer together."""
        return _Chunks("text", "text")


@final
class _Chunks:
    """Chunks of choices."""

    def __init__(self, delta: str, whole: str) -> None:
        self.error: str | None = None
        self._delta, self._whole = delta, whole
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._is_done = False

    @property
    def is_complete(self) -> bool:
        """Whether nothing more comes, or every choice has come to its end."""
        ended = [each.get("finish_reason") for each in self._choices.values()]
        return self._is_done or (bool(ended) and all(ended))

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take the data of one more event."""
        if chunk.get("error"):
            self.error = _error(chunk["error"])
            return
        for name, value in chunk.items():
            if name == "choices":
                for choice in value or ():
                    self._take(choice)
            elif value is not None:
                self._head[name] = value

    def _take(self, choice: Mapping[str, Any]) -> None:
        known = self._choices.setdefault(choice.get("index") or 0, {})
        delta = choice.get(self._delta)
        if delta:
            merge(known, {self._whole: delta})
        if choice.get("finish_reason"):
            known["finish_reason"] = choice["finish_reason"]

    def finish(self) -> None:
        """Take `[DONE]`."""
        self._is_done = True

    def answer(self) -> dict[str, Any]:
        """Return what has come, in the shape of an answer that is not streamed."""
        if not self._head and not self._choices:
            return {}
        return {**self._head, "choices": [joined(self._choices[place]) for place in sorted(self._choices)]}


def _request_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    response_format = body.get("response_format")
    return {
        "model": text(body.get("model")),
        "hyperparameters": parameters(body, _NO_PARAMETERS),
        "tools": body.get("tools") or None,
        "tool_choice": body.get("tool_choice"),
        "response_format": response_format if isinstance(response_format, Mapping) else None,
        "user_properties": {"user_id": body["user"]} if body.get("user") else None,
        "metadata": present({"request_metadata": body.get("metadata")}),
    }


def _answer_fields(answer: Mapping[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any]:
    usage = answer.get("usage")
    return {
        "model": text(answer.get("model")),
        "response": one_or_all(messages),
        "usage": present(usage) if isinstance(usage, Mapping) else None,
        "metadata": present(
            {"response_id": answer.get("id"), "system_fingerprint": answer.get("system_fingerprint")}
        ),
    }


def _message(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice.get("message") or {}
    given = {"role": "assistant", "content": None} | (present(message) or {})
    return given | ({"finish_reason": choice["finish_reason"]} if choice.get("finish_reason") else {})


def _error(error: Any) -> str:
    if isinstance(error, Mapping):
        return failure(error.get("message"), error.get("type") or error.get("code")) or "the stream failed"
    return str(error)
