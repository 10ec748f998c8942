"""LiteLLM's own record of a call, in the words of an event."""

import base64
import re
from collections.abc import Mapping
from typing import Any

from honeyhive_batcher.integrations.values import count, event_with, failure, one_or_all, text

_MODEL_CALLS = {
    name
    for plain in ("completion", "text_completion", "responses", "anthropic_messages", "generate_content")
    for name in (plain, f"a{plain}", f"{plain}_stream", f"a{plain}_stream")
}
"""The `call_type` of calls that a model answers with text. Others are of embeddings, files and so on."""
_OWN_FIELDS = ("tools", "tool_choice", "response_format")


def model_event(call: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the event of a call, None for what is no call of a language model, and was answered by a cache.

    `call` is what LiteLLM hands to its callbacks; all but the session stands in its
    `standard_logging_object`.
    """
    record: Mapping[str, Any] = call.get("standard_logging_object") or {}
    if record.get("call_type") not in _MODEL_CALLS or record.get("cache_hit"):
        return None
    parameters = dict(record.get("model_parameters") or {})
    own = {name: parameters.pop(name, None) for name in _OWN_FIELDS}
    answer = record.get("response")
    began, ended = record.get("startTime"), record.get("endTime")
    usage = _usage(record, answer)
    cost = record.get("response_cost")
    has_failed = record.get("status") == "failure"
    error_class = (record.get("error_information") or {}).get("error_class")
    event: dict[str, Any] = {
        "event_name": record["call_type"],
        "model": text(record.get("model")),
        "provider": text(record.get("custom_llm_provider")),
        "messages": _messages(record.get("messages")),
        "response": _response(answer) or None,
        "usage": usage,
        # 0 is also what LiteLLM says of a model whose price it does not know.
        "cost": cost if usage and isinstance(cost, (int, float)) and cost > 0 else None,
        "error": failure(record.get("error_str") or "", error_class) if has_failed else None,
        "hyperparameters": parameters or None,
        **own,
        "response_format": own["response_format"] if isinstance(own["response_format"], Mapping) else None,
        "session_id": _session_id(call, record),
        "user_properties": {"user_id": record["end_user"]} if record.get("end_user") else None,
        "metadata": {"tags": record["request_tags"]} if record.get("request_tags") else None,
    }
    if isinstance(began, (int, float)) and isinstance(ended, (int, float)):
        event |= {"start_time": began * 1e3, "end_time": ended * 1e3, "duration": (ended - began) * 1e3}
    return event_with(event)


def answer_id(call: Mapping[str, Any]) -> str | None:
    """Return the id that the provider gave to its answer."""
    record: Mapping[str, Any] = call.get("standard_logging_object") or {}
    found = text(record.get("id")) if record.get("status") == "success" else None
    if found is not None and found.startswith("resp_"):
        # Of the responses API LiteLLM hides it in an id of its own.
        try:
            inner = re.search(r"response_id:(.+)$", base64.b64decode(found[5:]).decode())
        except ValueError:
            return found
        return inner[1] if inner else found
    return found


def _session_id(call: Mapping[str, Any], record: Mapping[str, Any]) -> str | None:
    parameters: Mapping[str, Any] = call.get("litellm_params") or {}
    given = (parameters.get("metadata") or {}).get("session_id") or parameters.get("litellm_session_id")
    found = given or record.get("session_id")
    return str(found) if found else None


def _messages(messages: Any) -> Any:
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages


def _response(answer: Any) -> Any:
    """Return the message, or messages, of an answer; what has another shape as it is."""
    if not isinstance(answer, Mapping):
        return answer
    choices = answer.get("choices")
    if isinstance(choices, list):
        return one_or_all([_choice(each) for each in choices if isinstance(each, Mapping)])
    return answer.get("output", answer)


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    if not isinstance(message, Mapping):
        message = {"role": "assistant", "content": choice.get("text")}
    given = {name: value for name, value in message.items() if value is not None or name == "content"}
    return given | ({"finish_reason": choice["finish_reason"]} if choice.get("finish_reason") else {})


def _usage(record: Mapping[str, Any], answer: Any) -> dict[str, Any] | None:
    """Return the usage. None when all counts are 0: so LiteLLM writes that it does not know."""
    if not any(count(record.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")):
        return None
    found: dict[str, Any] = {
        name: record.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    }
    said: Any = answer.get("usage") if isinstance(answer, Mapping) else None
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        details = said.get(name) if isinstance(said, Mapping) else None
        kept = {key: value for key, value in (details or {}).items() if value is not None}
        if kept:
            found[name] = kept
    return found
