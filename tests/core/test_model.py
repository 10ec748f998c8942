"""The nouns that hold content do not show it: error reporters show the variables of every frame."""

import enum

import pytest

from honeyhive_batcher.core.model import (
    Admission,
    Attempt,
    Batch,
    Closing,
    DropReason,
    Endpoint,
    Fate,
    Fragment,
    GroupKey,
    Phase,
    Request,
    Response,
    Trigger,
)

CONTENT = b'{"content":"secret"}'


def test_what_holds_content_shows_its_size_and_nothing_of_it() -> None:
    key = GroupKey(session_id="s", properties=CONTENT)
    fragment = Closing(CONTENT, "id", key, 1, 0.0, settled=True, closing=CONTENT)
    shown = {
        repr(Fragment(CONTENT, "id")): "<Fragment 0: 20 bytes>",
        repr(key): "<GroupKey s: 20 bytes>",
        repr(fragment): "<Fragment 1: 20 bytes, settled>",
        repr(
            Request(method="POST", path="/p", body=CONTENT, max_reply_bytes=1)
        ): "<Request POST /p: 20 bytes>",
        repr(Response(status=500, body=CONTENT)): "<Response 500: 20 bytes, retry_after=None>",
    }
    assert list(shown) == list(shown.values())
    assert "secret" not in repr(Attempt(batch=Batch(key=key, fragments=(fragment,))))


@pytest.mark.parametrize("kind", [Admission, Trigger, Fate, DropReason, Phase, Endpoint])
def test_a_name_is_written_in_the_statistics_as_it_is_in_the_program(kind: type[enum.Enum]) -> None:
    assert {member.name.lower() for member in kind} == {member.value for member in kind}
    assert len(kind) == len(kind.__members__)


def test_two_that_hold_the_same_are_two() -> None:
    """A session, an event and an attempt are what they are, whatever another one holds."""
    key = GroupKey(session_id="s", properties=CONTENT)
    fragment = Fragment(CONTENT, "id", key, 1, 0.0)
    batch = Batch(key=key, fragments=(fragment,))
    everything = {
        *(GroupKey(session_id="s", properties=CONTENT) for _ in range(2)),
        *(Fragment(CONTENT, "id", key, 1, 0.0) for _ in range(2)),
        *(Batch(key=key, fragments=(fragment,)) for _ in range(2)),
        *(Request(method="POST", path="/p", body=CONTENT, max_reply_bytes=1) for _ in range(2)),
        *(Attempt(batch=batch) for _ in range(2)),
    }
    assert len(everything) == 10
