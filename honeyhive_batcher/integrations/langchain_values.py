"""What LangChain says of a call, in the words of an event."""

from collections.abc import Mapping
from typing import Any

from honeyhive_batcher.integrations.values import count, event_with, one_or_all, text, tool_call, usage

_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "HumanMessageChunk": "user"}
_OWN_FIELDS = ("tools", "tool_choice", "response_format")
_NO_PARAMETERS = {*_OWN_FIELDS, "model", "model_name", "_type", "stream"}
"""What is said elsewhere, or, as `stream`, not truly."""
_NO_METADATA = ("ls_", "lc_", "session_id")
"""How the names of metadata begin that LangChain adds for its own service, or that have a field here."""
_OWN_IDS = ("lc_run-", "run-")
"""How ids begin that LangChain makes itself where the provider gave none."""


def start_fields(messages: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are known when a run begins."""
    metadata: Mapping[str, Any] = about.get("metadata") or {}
    parameters: Mapping[str, Any] = about.get("invocation_params") or {}
    hyperparameters = {
        name: value for name, value in parameters.items() if name not in _NO_PARAMETERS and value is not None
    }
    kept = {name: value for name, value in metadata.items() if not str(name).startswith(_NO_METADATA)}
    if about.get("tags"):
        kept["tags"] = about["tags"]
    session_id = metadata.get("session_id")
    response_format = parameters.get("response_format")
    fields = {
        "event_name": text(about.get("name")),
        "event_id": str(about["run_id"]),
        "parent_id": str(about["parent_run_id"]) if about.get("parent_run_id") else None,
        "session_id": None if session_id is None else str(session_id),
        "model": text(parameters.get("model"), parameters.get("model_name"), metadata.get("ls_model_name")),
        "provider": text(metadata.get("ls_provider")),
        "messages": [_message(each) for each in messages],
        "hyperparameters": hyperparameters or None,
        "tools": parameters.get("tools") or None,
        "tool_choice": parameters.get("tool_choice"),
        "response_format": response_format if isinstance(response_format, Mapping) else None,
        "metadata": kept or None,
    }
    return event_with(fields)


def answer_fields(response: Any) -> dict[str, Any]:
    """Return the fields that an `LLMResult` tells; none when there is none."""
    generations = _generations(response)
    if not generations:
        return {}
    answers = [_answer(each) for each in generations]
    message = getattr(generations[0], "message", None)
    about: Mapping[str, Any] = getattr(message, "response_metadata", None) or {}
    output: Mapping[str, Any] = getattr(response, "llm_output", None) or {}
    return _given(
        model=text(about.get("model_name"), about.get("model"), output.get("model_name")),
        provider=text(about.get("model_provider")),
        response=one_or_all(answers),
        usage=_usage(getattr(message, "usage_metadata", None)) or _older_usage(output.get("token_usage")),
    )


def answer_id(response: Any) -> str | None:
    """Return the id that the provider gave to its answer, if LangChain hands it on."""
    for generation in _generations(response)[:1]:
        message = getattr(generation, "message", None)
        about = getattr(message, "response_metadata", None) or {}
        found = text(about.get("id"), getattr(message, "id", None))
        return None if found is None or found.startswith(_OWN_IDS) else found
    return None


def is_cached(response: Any) -> bool:
    """Return whether this comes from a cache of LangChain's, which says so by a cost of nothing."""
    messages = [getattr(generation, "message", None) for generation in _generations(response)]
    usages = [getattr(message, "usage_metadata", None) or {} for message in messages]
    return bool(usages) and all(usage.get("total_cost") == 0 for usage in usages)


def _generations(response: Any) -> list[Any]:
    """Return the choices of the one prompt that a run is about."""
    lists = getattr(response, "generations", None) or [[]]
    return [each for each in lists[0] if each is not None]


def _answer(generation: Any) -> dict[str, Any]:
    message = getattr(generation, "message", None)
    given = {"role": "assistant", "content": generation.text} if message is None else _message(message)
    about = getattr(message, "response_metadata", None) or getattr(generation, "generation_info", None) or {}
    reason = text(about.get("finish_reason"), about.get("stop_reason"), about.get("done_reason"))
    return given | ({"finish_reason": reason} if reason else {})


def _message(message: Any) -> Any:
    """Return a message as OpenAI's chat writes it. From its attributes: its dump may lack the tool calls."""
    if isinstance(message, str):
        return {"role": "user", "content": message}
    kind = getattr(message, "type", None)
    if kind is None:
        return message
    fields = {"role": getattr(message, "role", None) or _ROLES.get(kind, kind), "content": message.content}
    calls = [
        tool_call(each.get("id"), each.get("name"), each.get("args"))
        for each in getattr(message, "tool_calls", None) or ()
    ]
    # What a model wrote as arguments and is no JSON.
    calls += [
        tool_call(each.get("id"), each.get("name"), each.get("args"))
        for each in getattr(message, "invalid_tool_calls", None) or ()
    ]
    if calls:
        fields["tool_calls"] = calls
    return fields | _given(
        tool_call_id=getattr(message, "tool_call_id", None), name=getattr(message, "name", None)
    )


def _usage(counts: Any) -> dict[str, Any] | None:
    if not isinstance(counts, Mapping):
        return None
    read: Mapping[str, Any] = counts.get("input_token_details") or {}
    written: Mapping[str, Any] = counts.get("output_token_details") or {}
    return usage(
        count(counts.get("input_tokens")),
        count(counts.get("output_tokens")),
        count(counts.get("total_tokens")),
        {"cached_tokens": read.get("cache_read"), "cache_creation_tokens": read.get("cache_creation")},
        {"reasoning_tokens": written.get("reasoning")},
    )


def _older_usage(counts: Any) -> dict[str, Any] | None:
    """Return the usage of a completion model, which has no message: as the provider said it."""
    return dict(counts) if isinstance(counts, Mapping) and counts else None


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
