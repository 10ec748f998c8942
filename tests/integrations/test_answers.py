"""Answers put together from pieces, and told in the fields of an event."""

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyhive_batcher.integrations import answer_body
from honeyhive_batcher.integrations.answer_body import StreamedBody, WholeBody
from honeyhive_batcher.integrations.anthropic_messages import Messages
from honeyhive_batcher.integrations.deltas import joined, merge
from honeyhive_batcher.integrations.dialect import Dialect
from honeyhive_batcher.integrations.openai_chat import ChatCompletions, Completions
from honeyhive_batcher.integrations.openai_responses import Responses
from honeyhive_batcher.integrations.server_sent import ServerSentEvents
from honeyhive_batcher.integrations.values import parameters, present, stated
from tests.integrations import fake_answers


def streamed(dialect: Dialect, *chunks: dict[str, Any]) -> dict[str, Any]:
    assembly = dialect.assembly()
    for chunk in chunks:
        assembly.add(chunk)
    return {k: v for k, v in dialect.answer_fields(assembly.answer()).items() if v is not None}


# Server-sent events.


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\r\n\r\ndata:  b\r\n\r\n", [b"a", b" b"]),
        (b"event: x\nid: 5\nretry: 1\n: comment\ndata: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n\n\ndata: a\n\ndata: not ended", [b"a"]),
        (b"data: a\r\rdata: bcd\r\r:\n", [b"a", b"bcd"]),
        (b"", []),
    ],
)
def test_events_come_out_whole_however_they_came_in(stream: bytes, data: list[bytes]) -> None:
    for size in range(1, len(stream) + 1):
        events = ServerSentEvents()
        found: list[bytes] = []
        for at in range(0, len(stream), size):
            found += events.feed(stream[at : at + size])
            found += events.feed(b"")
        assert found == data


def test_a_long_event_in_many_pieces_takes_a_time_in_proportion() -> None:
    events = ServerSentEvents()
    piece = b"a" * 1000
    began = time.thread_time()
    assert not any(events.feed(piece) for _ in range(16_000))
    took = time.thread_time() - began
    assert took < 1.0, "16 MB, joined with each piece, are copied for ten seconds"
    assert events.feed(b"\n\n") == []


# Bodies.


@pytest.mark.parametrize(("text", "value"), [(b'"\\ud83d"', "\ud83d"), (b"-Infinity", -math.inf)])
def test_what_pythons_own_decoder_takes_is_taken(text: bytes, value: Any) -> None:
    body = b'{"id": "a", "choices": [{"delta": {"content": %b}, "finish_reason": "stop"}]}' % text
    whole, stream = WholeBody(), StreamedBody(ChatCompletions().assembly())
    whole.see(body)
    stream.see(b"data: %b\n\n" % body)
    assert whole.answer()["choices"][0]["delta"]["content"] == value
    assert stream.answer()["choices"][0]["message"]["content"] == value
    assert whole.is_complete
    assert stream.is_complete


def test_a_body_that_is_no_json_or_nested_deep_says_nothing() -> None:
    for text in (b"{", b"\xff", b"[" * 100_000):
        body = WholeBody()
        body.see(text)
        assert body.answer() == {}
        assert not body.is_complete


def test_an_event_that_is_no_object_is_passed_over() -> None:
    body = StreamedBody(Messages().assembly())
    for text in (b"", b"ping", b"5", b"null", b"[]"):
        body.see(b"event: ping\ndata: %b\n\n" % text)
    body.see(b'data: {"type": "message_start", "message": {"id": "a"}}\n\n')
    assert body.answer() == {"id": "a", "content": []}


def test_more_than_is_listened_to_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_body, "_MAX_HEARD", 40)
    whole = WholeBody()
    for piece in (b'{"id": "', b"a" * 40, b'"}'):
        whole.see(piece)
    assert whole.answer() == {}
    assert not whole.is_complete
    body = StreamedBody(ChatCompletions().assembly())
    body.see(b'data: {"id": "a"}\n\n')
    body.see(b'data: {"id": "b", "choices": []}\n\n')
    assert body.answer() == {"id": "a", "choices": []}
    assert not body.is_complete


def test_a_body_of_something_else_is_complete_and_says_nothing() -> None:
    body = WholeBody()
    body.see(b"[5]")
    assert body.answer() == {}
    assert body.is_complete


# Deltas.


@given(st.lists(st.text(max_size=5), min_size=1), st.lists(st.text(max_size=5)))
def test_pieces_become_what_they_were_cut_from(contents: list[str], arguments: list[str]) -> None:
    message: dict[str, Any] = {}
    for piece in contents:
        merge(message, {"role": "assistant", "content": piece, "refusal": None})
    for piece in arguments:
        merge(message, {"tool_calls": [{"index": 3, "id": "c", "function": {"arguments": piece}}]})
    merge(message, {"audio": {"expires_at": 5}})
    expected: dict[str, Any] = {"role": "assistant", "content": "".join(contents), "refusal": None}
    if arguments:
        expected["tool_calls"] = [{"id": "c", "function": {"arguments": "".join(arguments)}}]
    assert joined(message) == expected | {"audio": {"expires_at": 5}}


def test_items_without_an_index_are_told_apart_by_their_place() -> None:
    message: dict[str, Any] = {}
    for piece in ("a", "b"):
        rows: list[Any] = [{"index": None, "arguments": piece}, {"index": "x", "arguments": piece}]
        merge(message, {"tool_calls": rows})
    assert joined(message) == {"tool_calls": [{"arguments": "ab"}] * 2}


def test_what_changes_its_kind_is_what_it_was_last() -> None:
    message: dict[str, Any] = {"content": 5, "parts": "text", "about": "text"}
    merge(message, {"content": "a", "parts": [1, {"b": "c"}], "about": {"d": 1}})
    assert joined(message) == {"content": "a", "parts": [1, {"b": "c"}], "about": {"d": 1}}


# Dialects.


@pytest.mark.parametrize(
    ("dialect", "whole", "stream", "body"),
    [
        (ChatCompletions(), fake_answers.chat, fake_answers.chat_stream, {"n": 2}),
        (ChatCompletions(), fake_answers.chat, fake_answers.chat_stream, {"tools": [1]}),
        (Completions(), fake_answers.completion, fake_answers.completion_stream, {}),
        (Responses(), fake_answers.response, fake_answers.response_stream, {}),
        (Responses(), fake_answers.response, fake_answers.response_stream, {"tools": [1]}),
        (Messages(), fake_answers.message, fake_answers.message_stream, {}),
        (Messages(), fake_answers.message, fake_answers.message_stream, {"tools": [1]}),
    ],
)
def test_a_streamed_answer_is_told_like_a_whole_one(
    dialect: Dialect, whole: Any, stream: Any, body: dict[str, Any]
) -> None:
    asked = {"model": "good", "stream_options": {"include_usage": True}, **body}
    chunks = [json.loads(event.partition("data: ")[2]) for event in stream(asked) if "[DONE]" not in event]
    expected = dialect.answer_fields(whole(asked))
    for cut in range(len(chunks)):  # as far as it came, at whatever chunk it ends
        assert isinstance(streamed(dialect, *chunks[:cut]).get("response", {}), dict | list)
    found = streamed(dialect, *chunks)
    for fields in (found, expected):
        fields["metadata"].pop("response_id")
        fields["metadata"].pop("system_fingerprint", None)  # the fake provider does not stream it
    usage = expected.pop("usage")
    assert found.pop("usage", usage) == usage
    assert found == {k: v for k, v in expected.items() if v is not None} | (
        {"response": _arguments(expected["response"], found["response"])}
    )


def _arguments(expected: Any, found: Any) -> Any:
    """Return what is expected, with the arguments of tools written as found, if they mean the same."""
    calls = expected.get("tool_calls") if isinstance(expected, dict) else None
    for mine, other in zip(calls or (), found.get("tool_calls", ()) if calls else (), strict=True):
        assert json.loads(mine["function"]["arguments"]) == json.loads(other["function"]["arguments"])
        mine["function"]["arguments"] = other["function"]["arguments"]
    return expected


def test_items_of_a_response_that_is_left() -> None:
    item = {"type": "message", "id": "m", "role": "assistant"}
    found = streamed(
        Responses(),
        {"type": "response.created", "response": {"id": "r", "model": "m", "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "x"}},
        {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 0},
        {
            "type": "response.reasoning_summary_text.delta",
            "output_index": 0,
            "summary_index": 0,
            "delta": "Hm. ",
        },
        {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "Bees?"},
        {"type": "response.output_item.added", "output_index": 1, "item": item | {"content": []}},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Be"},
        {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "es"},
        {"type": "response.refusal.delta", "output_index": 1, "content_index": 1, "delta": "No."},
        {
            "type": "response.output_item.added",
            "output_index": 2,
            "item": {"type": "function_call", "call_id": "c", "name": "n", "arguments": ""},
        },
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"a"'},
        {"type": "response.output_item.done", "output_index": 3, "item": {"type": "web_search_call"}},
    )
    assert found["response"] == {
        "role": "assistant",
        "content": "Bees",
        "refusal": "No.",
        "reasoning": "Hm. \nBees?",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "n", "arguments": '{"a"'}}],
        "items": [{"type": "web_search_call"}],
    }
    assert found["metadata"] == {"response_id": "r", "status": "in_progress"}


def test_a_response_that_failed_or_was_cut_says_so() -> None:
    answer = {
        "id": "r",
        "status": "failed",
        "error": {"code": "server_error", "message": "no bees"},
        "incomplete_details": {"reason": "max_output_tokens"},
    }
    assembly = Responses().assembly()
    assembly.add({"type": "response.failed", "response": answer})
    assert assembly.is_complete
    fields = Responses().answer_fields(assembly.answer())
    assert fields["error"] == "server_error: no bees"
    assert fields["metadata"]["incomplete_reason"] == "max_output_tokens"
    assembly.add({"type": "error", "message": "gone", "code": None})
    assert assembly.error == "error: gone"


@pytest.mark.parametrize(
    ("dialect", "chunk", "error"),
    [
        (ChatCompletions(), {"error": {"message": "no", "type": "busy"}}, "busy: no"),
        (ChatCompletions(), {"error": {"message": "no", "code": "busy"}}, "busy: no"),
        (ChatCompletions(), {"error": {}}, None),
        (ChatCompletions(), {"error": "no"}, "no"),
        (ChatCompletions(), {"error": {"param": 1}}, "the stream failed"),
        (Responses(), {"error": {"param": 1}}, "the stream failed"),
        (Messages(), {"type": "error", "error": {"message": "no", "type": "busy"}}, "busy: no"),
        (Messages(), {"type": "error"}, "the stream failed"),
    ],
)
def test_an_error_in_a_stream_is_told(dialect: Dialect, chunk: Any, error: str | None) -> None:
    assembly = dialect.assembly()
    assembly.add(chunk)
    assert assembly.error == error


def test_a_chat_is_complete_when_every_choice_has_ended_or_it_says_so() -> None:
    assembly = ChatCompletions().assembly()
    assert not assembly.is_complete
    assembly.add({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}, {"index": 1, "delta": {}}]})
    assert not assembly.is_complete
    assembly.add({"choices": [{"index": 1, "finish_reason": "length"}]})
    assert assembly.is_complete
    other = ChatCompletions().assembly()
    other.finish()
    assert other.is_complete


@pytest.mark.parametrize("dialect", [Responses(), Messages()])
def test_who_has_another_word_for_the_end_does_not_mind(dialect: Dialect) -> None:
    assembly = dialect.assembly()
    assembly.finish()
    assert not assembly.is_complete
    assert assembly.answer() == {}


def test_blocks_of_a_message() -> None:
    found = streamed(
        Messages(),
        {"type": "message_start", "message": {"id": "m", "model": "x", "usage": {"input_tokens": 5}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "server_tool_use", "id": "t"}},
        {"type": "message_delta", "delta": {"stop_reason": "pause_turn"}},
        {"type": "unheard_of"},
    )
    assert found["response"] == {
        "role": "assistant",
        "content": None,
        "reasoning": "Hm",
        "blocks": [{"type": "server_tool_use", "id": "t"}],
        "finish_reason": "pause_turn",
    }
    assert found["usage"] == {"prompt_tokens": 5}


def test_requests_of_other_kinds() -> None:
    fields = Responses().request_fields(
        {
            "input": [{"role": "user", "content": "a"}],
            "prompt": {"id": "p", "variables": {"b": "c"}},
            "conversation": {"id": "conv"},
            "text": {"format": {"type": "text"}},
            "user": "bee",
        }
    )
    assert fields["messages"] == [{"role": "user", "content": "a"}]
    assert (fields["template"], fields["template_inputs"]) == ("p", {"b": "c"})
    assert fields["metadata"] == {"conversation_id": "conv"}
    assert fields["response_format"] == {"type": "text"}
    assert fields["user_properties"] == {"user_id": "bee"}
    assert fields["hyperparameters"] is None
    assert Responses().request_fields({"conversation": "conv"})["metadata"] == {"conversation_id": "conv"}
    other = Messages().request_fields(
        {"output_format": {"type": "json_schema"}, "metadata": {"user_id": "b"}}
    )
    assert other["response_format"] == {"type": "json_schema"}
    assert other["user_properties"] == {"user_id": "b"}
    assert ChatCompletions().request_fields({"response_format": "auto"})["response_format"] is None


def test_values_that_are_present() -> None:
    assert present({"a": None, "b": {"c": None}, "d": {"e": 1, "f": None}, "g": 0}) == {"d": {"e": 1}, "g": 0}
    assert present({"a": None}) is None
    assert stated({"a": 1, "b": object(), "c": None, "d": (1,), "e": {}}) == {"a": 1, "d": (1,), "e": {}}
    assert parameters({"a": 1, "d": (1,)}, {"a"}) == {"d": (1,)}
    assert parameters({"a": 1}, {"a"}) is None
