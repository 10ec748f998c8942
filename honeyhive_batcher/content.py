"""What is left of an event, or of a session's properties, when no content may leave the process.

Everything is content but for what is named here: a field, or a member of a message, that nobody has thought
of goes. What stays of content is its shape: how much there was, of which roles, of which tools, and its end.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_KEPT = _words(
    "event_id session_id parent_id children_ids project project_id source event_name event_type session_name",
    "model model_name model_version provider duration cost start_time end_time",
)
"""Fields that are no content: names, ids, times and prices."""
_APPLICATIONS = _words("metadata user_properties")
"""Fields that only the application itself fills: they stay, but for members that are named like content."""
_FIGURES = _words("usage hyperparameters config metrics feedback")
"""Fields of which numbers, truths and words of a vocabulary stay."""
_CONTENT = _words(
    "messages response inputs outputs template template_inputs tools tool_choice response_format",
    "chat_history prompt completion ground_truth input output system instructions functions text schema",
    "json_schema",
)
"""Names of content, wherever they stand below the fields above."""

_STRUCTURE = _words(
    "message messages content parts choices delta chat_history output outputs tool_calls tools function",
    "functions function_call functionCall functionResponse toolUse toolResult toolSpec function_declarations",
    "functionDeclarations candidates tool_choice data kwargs incomplete_details text",
)
"""Members of content that are looked into; of a text there its length stays."""
_OF_TOOLS = _words(
    "function functions function_call functionCall functionResponse tool_calls tools toolUse toolSpec",
    "function_declarations functionDeclarations tool_choice",
)
"""Members of content in which a `name` is that of a tool. Elsewhere it may be that of a person."""
_TOOL_TYPES = _words("tool_use server_tool_use tool_call function_call custom_tool_call")
_TOOL_ROLES = _words("tool function")
_VOCABULARY = _words(
    "system developer user assistant tool function model human ai chatbot text image image_url input_text",
    "input_image input_audio input_file audio file document video output_text refusal message reasoning",
    "thinking redacted_thinking tool_use tool_result tool_call server_tool_use web_search_tool_result",
    "web_search_call function_call function_call_output custom_tool_call custom mcp_call file_search_call",
    "code_interpreter_call computer_call image_generation_call json_object json_schema auto any none",
    "required constructor completed incomplete in_progress failed cancelled max_output_tokens content_filter",
)
"""What is said of a message, or of a part of one, in words of the providers' own."""
_TOLD = _words("role type status reason")
"""Members of content that stay when they are a word of this vocabulary: those of a tool's arguments, or of
an application's own inputs, may have the same names."""
_ENDS = _words("finish_reason stop_reason finishReason stopReason")
"""Members of content that stay when they are one word."""
_CHOICES = _words(
    "model model_name model_version provider type effort reasoning_effort verbosity service_tier truncation",
    "modalities voice format quality size encoding_format",
)
"""Members of settings and figures whose texts stay when they are one word."""

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}").fullmatch
_CHOICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,99}").fullmatch
_TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,127}").fullmatch
_MEMBER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}").fullmatch
_KIND = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}").fullmatch

_MAX_DEPTH = 24
"""Levels of content that are looked into. Those of a chat with tools are eight."""


def without_content(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may leave of an event, or of a session's properties, given as plain JSON values.

    Nothing of `fields` is changed. What is a list, an object or a text there is one in the answer.
    """
    left: dict[str, Any] = {}
    omitted: dict[str, Any] = {}
    for name, value in fields.items():
        if not _MEMBER_NAME(name):
            omitted[name] = value
        elif name in _KEPT and (name == "children_ids" or not isinstance(value, (dict, list))):
            left[name] = value
        elif name in _APPLICATIONS:
            left[name] = _application(value)
        elif name in _FIGURES:
            left[name] = _figures(name, value, 0)
        elif name == "error":
            left[name] = _kind(value)
        else:
            left[name] = _shape(value, name)
    return _with_omitted(left, omitted)


def _kind(error: Any) -> Any:
    """Return the name before the colon of an error's text, or its length if there is no name."""
    if not isinstance(error, str):
        return _shape(error)
    kind = error.partition(":")[0].strip()
    return kind if _KIND(kind) else _length(error)


def _application(value: Any, depth: int = 0) -> Any:
    """Return what an application tells, at any depth without members that are named like content."""
    if depth > _MAX_DEPTH:
        return _shape(value)
    if isinstance(value, list):
        return [_application(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _shape(item, name) if name in _CONTENT else _application(item, depth + 1)
        for name, item in value.items()
    }


def _figures(name: str, value: Any, depth: int) -> Any:
    """Return the numbers, the truths and the words of a vocabulary in settings or measurements."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if name in _CONTENT or depth > _MAX_DEPTH:
        return _shape(value, name)
    if isinstance(value, str):
        return value if name in _CHOICES and _CHOICE(value) else _length(value)
    if isinstance(value, list):
        words = name in _CHOICES and all(isinstance(item, str) and _CHOICE(item) for item in value)
        return value if words else _shape(value)
    return _members(value, lambda key, item: _figures(key, item, depth + 1), _MEMBER_NAME)


def _shape(value: Any, name: str = "", depth: int = 0) -> Any:
    """Return the shape of content: a text's length, and of an object what is in no doubt."""
    if value is None:
        return None
    if isinstance(value, str):
        # The word that says which tool is to be used, or its name.
        return value if name == "tool_choice" and _TOOL_NAME(value) else _length(value)
    if isinstance(value, (bool, int, float)):
        return "[number]"
    if depth > _MAX_DEPTH:
        return "[nested]"
    if isinstance(value, list):
        if value and not any(isinstance(item, dict) for item in value):
            return [_items(value)]  # also numbers: they may be tokens, or an embedding
        return [_shape(item, name, depth + 1) for item in value]
    is_tool = (
        name in _OF_TOOLS or _is_one_of(value, "type", _TOOL_TYPES) or _is_one_of(value, "role", _TOOL_ROLES)
    )

    def member(key: str, item: Any) -> Any:
        if key in _TOLD and isinstance(item, str):
            return item if item.lower() in _VOCABULARY else _length(item)
        if key in _ENDS and isinstance(item, str):
            return item if _WORD(item) else _length(item)
        if key == "name" and is_tool and isinstance(item, str):
            return item if _TOOL_NAME(item) else _length(item)
        return _shape(item, key, depth + 1)

    return _members(
        value,
        member,
        lambda key: key in _STRUCTURE or key in _TOLD or key in _ENDS or (is_tool and key == "name"),
    )


def _members(
    value: dict[str, Any], member: Callable[[str, Any], Any], is_known: Callable[[str], object]
) -> dict[str, Any]:
    omitted = {key: item for key, item in value.items() if not is_known(key)}
    left = {key: member(key, item) for key, item in value.items() if key not in omitted}
    return _with_omitted(left, omitted)


def _with_omitted(left: dict[str, Any], omitted: dict[str, Any]) -> dict[str, Any]:
    """Add how much was left out, under a name that has no meaning to HoneyHive."""
    if omitted:
        characters = _characters(list(omitted.values()))
        left["omitted"] = f"[{_count(len(omitted), 'member')}, {_count(characters, 'character')}]"
    return left


def _is_one_of(value: dict[str, Any], name: str, words: frozenset[str]) -> bool:
    word = value.get(name)
    return isinstance(word, str) and word in words


def _length(text: str) -> str:
    return f"[{_count(len(text), 'character')}]"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _items(values: list[Any]) -> str:
    characters = _characters(values)
    length = f", {_count(characters, 'character')}" if characters else ""
    return f"[{_count(len(values), 'item')}{length}]"


def _characters(values: list[Any]) -> int:
    """Return how long all texts below are together. Without recursion: they may be nested deep."""
    characters = 0
    waiting: list[Any] = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return characters
