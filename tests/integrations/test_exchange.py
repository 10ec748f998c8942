"""A call's way to its event, where it is rare: told twice, from a fork, within itself, in another shape."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import pytest

from honeyhive_batcher.claims import Claim
from honeyhive_batcher.integrations import failures
from honeyhive_batcher.integrations.exchange import Exchange
from honeyhive_batcher.integrations.openai_chat import ChatCompletions
from honeyhive_batcher.integrations.response_tap import tap
from tests.integrations.kept import Kept

ANSWER = b'{"id": "a", "model": "m", "choices": [{"message": {"content": "Honey."}}]}'


def exchange(kept: Kept, dialect: Any = None, claim: Claim | None = None) -> Exchange:
    body = {"model": "m", "messages": []}
    dialect = dialect or ChatCompletions()
    return Exchange(kept, dialect, body=body, provider="p", claim=claim, is_async=False)


def test_what_comes_after_the_end_changes_nothing() -> None:
    kept = Kept()
    made = exchange(kept)
    made.see(ANSWER)
    made.end()
    made.see(b"more")
    made.end(ValueError("late"))
    (event,) = kept.events
    assert event["response"]["content"] == "Honey."
    assert "error" not in event


def test_a_caller_that_is_gone_is_no_error() -> None:
    kept = Kept()
    exchange(kept).end(GeneratorExit())
    (event,) = kept.events
    assert event["metadata"] == {"incomplete": True}
    assert "error" not in event


def test_a_forked_child_leaves_the_call_to_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    made = exchange(kept)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    made.end()
    monkeypatch.undo()
    made.end()
    assert not kept.events


class Interrupted(ChatCompletions):  # type: ignore[misc]  # final: for this test only
    """Is interrupted while it reads an answer, by whoever ends the call meanwhile."""

    def __init__(self, *, fails: bool) -> None:
        self.made: Exchange | None = None
        self._fails = fails

    def answer_fields(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Let the call end within its end, once."""
        made, self.made = self.made, None
        if made is not None:
            made.end()
            if self._fails:
                raise ValueError
        return super().answer_fields(answer)


@pytest.mark.parametrize("fails", [False, True])
def test_of_two_that_end_a_call_at_once_one_tells(fails: bool) -> None:
    kept = Kept()
    dialect = Interrupted(fails=fails)
    dialect.made = exchange(kept, dialect)
    made = dialect.made
    made.see(ANSWER)
    made.end()
    assert len(kept.events) == 1
    assert kept.events[0]["response"]["content"] == "Honey."


def test_an_answer_of_another_shape_is_counted_but_under_a_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_told", set())
    kept = Kept()
    for claim in (None, Claim(kept, is_deaf=True)):
        made = exchange(kept, claim=claim)
        made.see(b'{"choices": 5}')
        made.end()
        made.end()
    assert kept.events == [None]


class Response:
    """A response of httpx's kind, of which reading fails."""

    def iter_bytes(self) -> Any:
        """Yield a piece, and fail."""
        yield b"a"
        raise ConnectionResetError("gone")

    def close(self) -> None:
        """Close."""


def test_a_blocking_read_that_fails_is_the_end_and_what_reads_is_a_generator_to_others() -> None:
    kept = Kept()
    made = exchange(kept)
    response = Response()
    tap(response, made, is_async=False)
    pieces: Any = response.iter_bytes()
    assert next(pieces) == b"a"
    assert pieces.gi_running is False
    with pytest.raises(ConnectionResetError):
        next(pieces)
    assert not {"iter_bytes", "close"} & set(vars(response))
    response.close()
    (event,) = kept.events
    assert event["error"] == "ConnectionResetError: gone"


def test_an_asynchronous_reader_is_a_generator_to_others() -> None:
    class Awaited:
        async def aiter_bytes(self) -> Any:
            yield b"a"

        async def aclose(self) -> None:
            """Close."""

    async def read() -> list[bytes]:
        response = Awaited()
        tap(response, exchange(kept), is_async=True)
        pieces: Any = response.aiter_bytes()
        assert pieces.ag_running is False
        return [piece async for piece in pieces]

    kept = Kept()
    assert asyncio.run(read()) == [b"a"]
    assert len(kept.events) == 1
