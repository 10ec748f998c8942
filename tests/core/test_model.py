"""The nouns that hold content do not show it: error reporters show the variables of every frame."""

import enum
import itertools

import pytest

from honeyhive_batcher.core.fragment import (
    APPENDED,
    SESSIONLESS,
    Closing,
    Fragment,
    GroupKey,
    Mended,
    Repaired,
    ids_of,
    size_of,
)
from honeyhive_batcher.core.model import (
    Admission,
    Attempt,
    Batch,
    DropReason,
    Endpoint,
    Fate,
    Phase,
    Response,
    Trigger,
)
from honeyhive_batcher.core.request import Request
from tests.fakes import NEW_ID

CONTENT = b'{"content":"secret"}'


def test_what_holds_content_shows_its_size_and_nothing_of_it() -> None:
    key = GroupKey(session_id="s", properties=CONTENT)
    fragment = Closing(CONTENT, "id", key, 1, 0.0, settled=True, closing=CONTENT)
    shown = {
        repr(Fragment(CONTENT, "id")): "<Fragment 0: 20 bytes>",
        repr(key): "<GroupKey s: 20 bytes>",
        repr(fragment): "<Fragment 1: 20 bytes, settled>",
        repr(
            Request(method="POST", path="/p", parts=(CONTENT,), max_reply_bytes=1)
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
        *(Repaired(CONTENT, "id", key, 1, 0.0, repairs=1) for _ in range(2)),
        *(Closing(CONTENT, "id", key, 1, 0.0, closing=CONTENT) for _ in range(2)),
        *(Mended(CONTENT, "id", key, 1, 0.0, charged=1) for _ in range(2)),
        *(Batch(key=key, fragments=(fragment,)) for _ in range(2)),
        *(Request(method="POST", path="/p", parts=(CONTENT,), max_reply_bytes=1) for _ in range(2)),
        *(Attempt(batch=batch) for _ in range(2)),
    }
    assert len(everything) == 16


def test_an_event_that_was_not_accepted_yet_has_no_place_and_nothing_special() -> None:
    event = Fragment(CONTENT, "id")
    assert (event.key, event.seq, event.accepted_at, event.settled) == (SESSIONLESS, 0, 0.0, False)
    assert (event.repairs, event.closing, event.maybe_sent) == (0, b"", False)


def test_nothing_is_plain_or_compressed_unless_it_is_said() -> None:
    batch = Batch(key=SESSIONLESS, fragments=(Fragment(CONTENT, "id"),))
    assert Attempt(batch=batch).plain is False
    assert Request(method="POST", path="/p", parts=(CONTENT,), max_reply_bytes=1).plain is False
    assert Response(status=200).compressed is False


# Ids and sizes.

OURS = (b'{"x":"\xc3\xa9","event_id":"%b"}' % NEW_ID.encode(), -38)
IDS: list[tuple[Fragment, str]] = [
    (Fragment(*OURS), NEW_ID),
    (Fragment(OURS[0].replace(b"6e", b"00"), APPENDED), NEW_ID.replace("6e", "00")),
    (Repaired(*OURS, repairs=1), NEW_ID),
    (Fragment(b'{"event_id":"mine","x":"y"}', 13), "mine"),
    (Fragment(b'{"event_id":"caf\xc3\xa9"}', 13), "café"),
    (Fragment(b'{"event_id":"qu\\"ote"}', 'qu"ote'), 'qu"ote'),
    (Closing(b'{"event_id":"s"}', "s", closing=b"{}"), "s"),
    (Mended(CONTENT, NEW_ID, charged=3), NEW_ID),
]


@pytest.mark.parametrize(("fragment", "event_id"), IDS)
def test_an_id_is_read_out_of_the_bytes_that_hold_it(fragment: Fragment, event_id: str) -> None:
    assert fragment.event_id == event_id


def test_the_ids_of_many_are_those_of_each_in_their_order() -> None:
    """Those that were made here are taken together, where there are no others."""
    assert ids_of(()) == ()
    for length in (1, 2, 3):
        for pairs in itertools.permutations(IDS, length):
            assert ids_of([fragment for fragment, _ in pairs]) == tuple(event_id for _, event_id in pairs)


def test_what_is_charged_is_what_was_taken_when_it_was_accepted() -> None:
    ten = b"x" * 10
    fragments = [
        Fragment(ten, "a"),
        Repaired(ten, "b", repairs=3),
        Closing(ten, "c", closing=b"c" * 7),
        Mended(ten, "d", charged=13),
    ]
    assert [fragment.size for fragment in fragments] == [10, 10, 17, 13]
    assert size_of(fragments) == size_of(iter(fragments)) == 50
    assert size_of(()) == 0
