"""What a reply says about each fragment. The tables are written by hand from design.md, section 5."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyhive_batcher.core.fragment import SESSIONLESS, Closing, Fragment, GroupKey
from honeyhive_batcher.core.model import Batch, Failure, Response
from honeyhive_batcher.core.verdict import (
    Ambiguous,
    Delivered,
    Misconfigured,
    NotCompressed,
    NotNow,
    Partly,
    Refused,
    TooLarge,
    Verdict,
    judge,
)

SESSION = GroupKey(session_id="s", properties=b"{}")


def fragment(event_id: str, key: GroupKey = SESSIONLESS, closing: bytes = b"") -> Fragment:
    if closing:
        return Closing(b"{}", event_id, key, 1, 0.0, closing=closing)
    return Fragment(b"{}", event_id, key, 1, 0.0)


def batch(*event_ids: str) -> Batch:
    return Batch(key=SESSIONLESS, fragments=tuple(fragment(event_id) for event_id in event_ids))


UPDATE = Batch(key=SESSION, fragments=(fragment("s", SESSION, b"{}"),))


def body(event_ids: Any = None, errors: Any = None, success: Any = True) -> bytes:
    fields = {"event_ids": event_ids, "errors": errors, "success": success}
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def expected_without_body(status: int) -> type[Verdict]:
    if 200 <= status <= 299:
        return Delivered
    if status in (408, 425, 429, 503):
        return NotNow
    if status >= 500:
        return Ambiguous
    if status == 413:
        return TooLarge
    if status in (401, 403, 404) or 300 <= status <= 399:
        return Misconfigured
    if status in (402, 405, 407, 410):  # not in the design's table: a bill, a method, a proxy, a route gone
        return Misconfigured
    return Refused  # 400 and 422, and whatever else finds fault with the request


@pytest.mark.parametrize("status", range(200, 600))
@pytest.mark.parametrize("content", [b"", b"<html></html>", b"{}", b"null"])
def test_a_status_alone_decides_when_the_body_says_nothing(status: int, content: bytes) -> None:
    verdict = judge(batch("a", "b"), Response(status=status, body=content, retry_after=7.0))
    assert type(verdict) is expected_without_body(status)
    if not isinstance(verdict, Delivered):
        assert verdict.cause == f"HTTP {status}"
    if isinstance(verdict, (NotNow, Ambiguous, Misconfigured)):
        assert verdict.retry_after == 7.0
    if isinstance(verdict, NotNow):
        assert not verdict.unsent


@pytest.mark.parametrize("sent", [batch("a"), batch("a", "b"), UPDATE], ids=["one", "two", "an update"])
def test_a_compressed_body_that_is_refused_may_be_refused_for_that(sent: Batch) -> None:
    for status in range(100, 600):
        verdict = judge(sent, Response(status=status, compressed=True, retry_after=7.0))
        if status in (400, 415):
            assert verdict == NotCompressed(cause=f"HTTP {status} to a compressed body")
        else:
            assert verdict == judge(sent, Response(status=status, retry_after=7.0))


@pytest.mark.parametrize("status", [201, 202, 204, 299, 301, 400, 408, 413, 429, 502, 503, 599])
def test_a_body_with_ids_counts_only_where_the_route_answers_with_one(status: int) -> None:
    verdict = judge(batch("a", "b"), Response(status=status, body=body(["a"], ["x"])))
    assert isinstance(verdict, Partly if status < 300 else expected_without_body(status))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Delivered),
        (204, Delivered),
        (301, Misconfigured),
        (400, Refused),
        (401, Misconfigured),
        (402, Refused),
        (403, Refused),
        (404, Refused),
        (405, Refused),
        (408, NotNow),
        (410, Refused),
        (413, TooLarge),
        (422, Refused),
        (429, NotNow),
        (500, Ambiguous),
        (501, Refused),
        (503, NotNow),
        (504, Ambiguous),
    ],
)
def test_an_update_of_a_session_is_refused_where_the_session_is_unknown(
    status: int, expected: type[Verdict]
) -> None:
    verdict = judge(UPDATE, Response(status=status))
    assert isinstance(verdict, expected)
    assert isinstance(verdict, Delivered) or verdict.cause == f"HTTP {status}"


def test_an_update_needs_no_ids_in_the_reply() -> None:
    assert judge(UPDATE, Response(status=200, body=body([], []))) == Delivered()
    assert judge(UPDATE, Response(status=200, body=body(["other"], ["x"]))) == Delivered()
    assert isinstance(judge(UPDATE, Response(status=500, body=body(["s"], []))), Ambiguous)


def test_a_connection_that_never_stood_is_surely_not_delivered() -> None:
    verdict = judge(batch("a"), Failure(cause="refused", unsent=True))
    assert verdict == NotNow(cause="refused", unsent=True, retry_after=None)


def test_a_connection_that_broke_tells_nothing() -> None:
    assert judge(batch("a"), Failure(cause="reset", unsent=False)) == Ambiguous(cause="reset")


# Bodies. In the tables: status, ids sent, reply, and what is expected.

Table = list[tuple[list[str], bytes, object]]

BOTH: Table = [
    (["a", "b"], body(["a", "b"]), Delivered()),
    (["a", "b"], body(["b", "a"]), Delivered()),
    (["a", "b"], body(["a", "b", "other"]), Delivered()),
    (["a", "b"], body(["a", "b"], ["x", "y"]), Delivered()),
    (
        ["a", "b"],
        body(["a", "b"], success=False),
        Delivered(),
    ),  # it says both: what is named is not sent again
    (["a", "b"], body(["a"], ["x"], success=False), (["a"], ["b"], True)),
    (["a", "b"], body([], ["x", "y"], success=False), ([], ["a", "b"], True)),
    (["Ab"], body(["aB"]), Delivered()),
    (["a", "b"], body(["A"], ["x"]), (["a"], ["b"], True)),
    (["a", "b"], body(["a"], ["x"]), (["a"], ["b"], True)),
    (["a", "b"], body(["a"], []), (["a"], ["b"], False)),
    (["a", "b"], body(["a"]), (["a"], ["b"], False)),
    (["a", "b"], body(["a"], "x"), (["a"], ["b"], False)),
    (["a", "b", "c", "d"], body(["b", "c"], ["x", "y"]), (["b", "c"], ["a", "d"], True)),
    (["a", "b", "c", "d"], body(["b", "c"], ["x"]), (["b", "c"], ["a", "d"], False)),
    (["a", "b", "c"], body(["a", None, []]), (["a"], ["b", "c"], False)),
    (["a", "b"], body([], ["x", "y"]), ([], ["a", "b"], True)),
    (["a", "b"], body([], ["x", "y", "z"]), ([], ["a", "b"], True)),
    # Two events with one id: each id returned accounts for one of them.
    (["a", "a"], body(["a"]), (["a"], ["a"], False)),
    (["a", "a"], body(["a", "a"]), Delivered()),
    (["a", "a", "b"], body(["a", "b"], ["x"]), (["a", "b"], ["a"], True)),
    (["a", "b"], body(["a", "a"], ["x"]), (["a"], ["b"], True)),
    # Ids of the server's own, fewer than there are events: some were created, and nobody knows which.
    (["a", "b"], body(["1"]), ([], ["a", "b"], False, "other ids")),
    (["a", "b"], body(["1"], ["x"]), ([], ["a", "b"], False, "other ids")),
    (["a", "b"], body(["1", "2"], ["x"]), ([], ["a", "b"], False, "other ids")),
    (["a", "b"], body(["1", "2"], ["x", "y"]), ([], ["a", "b"], True, "other ids")),
    (["a", "b"], body(["1", "1"]), ([], ["a", "b"], False, "other ids")),
    (["a", "b"], body(["1", ""]), ([], ["a", "b"], False, "other ids")),
    (["a", "b"], body([2]), ([], ["a", "b"], False, "other ids")),
    (["a", "b", "c"], body(["c", "1"]), (["c"], ["a", "b"], False, "other ids")),
    (["a", "b", "c"], body(["c", "1"], ["x"]), (["c"], ["a", "b"], False, "other ids")),
    (["a", "b", "c"], body(["c", "1"], ["x", "y"]), (["c"], ["a", "b"], True, "other ids")),
    (["a", "b", "c"], body(["c", "1"], success=False), (["c"], ["a", "b"], False, "other ids")),
    (["a", "b"], body(["a", "1"], success=False), (["a"], ["b"], False, "other ids")),
    (["a", "b"], body(["1"], success=False), Ambiguous),
    (["a", "b"], body(["1", "2"], success=False), Ambiguous),
    (["a", "b"], body(["1", "2"], ["x"], success=False), Ambiguous),
]

ONLY_2XX: Table = [
    (["a", "b"], body(["1", "2"]), Delivered()),
    (["a", "b"], body(["1", "2", "3"]), Delivered()),
    (["a", "b", "c"], body(["c", "1", "2"]), Delivered()),
    (["a", "b"], body([]), Ambiguous),
    (["a", "b"], body([], ["x"]), Ambiguous),
    (["a", "b"], body([1, 2]), Delivered()),
    (["a", "b"], body([None, {}]), Ambiguous),
    (["a", "b"], body([""]), Ambiguous),
    (["a", "b"], body(success=False), Ambiguous),
    (["a", "b"], body(errors=["x", "y"]), ([], ["a", "b"], True)),
    (["a", "b"], body(errors=["x", "y"], success=False), ([], ["a", "b"], True)),
    (["a", "b"], body(errors=["x"]), ([], ["a", "b"], False, "without ids")),
    (["a", "b"], body(errors="x"), Delivered()),
    (["a", "b"], body(errors=["x"], success=False), Ambiguous),
    (["a", "b"], body("a"), Delivered()),
    (["a", "b"], body({"a": 1}, success=False), Ambiguous),
]

ONLY_500: Table = [
    (["a", "b"], body(["1", "2"]), ([], ["a", "b"], False, "other ids")),
    (["a", "b"], body([]), Ambiguous),
    (["a", "b"], body([], ["x"]), Ambiguous),
    (["a", "b"], body([""]), Ambiguous),
    (["a", "b"], body(errors=["x", "y"]), Ambiguous),
    (["a"], body(errors="the database is down"), Ambiguous),
    (["a", "b"], body(success=False), Ambiguous),
    (["a", "b"], body(success=True), Ambiguous),
    (["a", "b"], b"<h1>Internal Server Error</h1>", Ambiguous),
    (["a", "b"], b'{"event_ids":["a"', Ambiguous),
]


@pytest.mark.parametrize(
    ("status", "event_ids", "content", "expected"),
    [(status, *row) for status in (200, 201, 500) for row in BOTH]
    + [(200, *row) for row in ONLY_2XX]
    + [(500, *row) for row in ONLY_500],
)
def test_the_ids_in_a_body_tell_what_arrived(
    status: int, event_ids: list[str], content: bytes, expected: object
) -> None:
    sent = batch(*event_ids)
    verdict = judge(sent, Response(status=status, body=content, retry_after=3.0))
    if isinstance(expected, tuple):
        delivered, rest, accounted, *why = expected
        assert isinstance(verdict, Partly)
        assert [fragment.event_id for fragment in verdict.delivered] == delivered
        assert [fragment.event_id for fragment in verdict.rest] == rest
        assert verdict.accounted is accounted
        assert verdict.attributed is not bool(why)
        assert verdict.cause.startswith(f"HTTP {status}")
        assert verdict.cause.endswith(why[0] if why else str(status))
    elif isinstance(expected, type):
        assert isinstance(verdict, expected)
    else:
        assert verdict == expected
    if isinstance(verdict, Ambiguous) and status == 500:
        assert verdict.retry_after == 3.0


@pytest.mark.parametrize("status", [200, 500])
def test_a_body_that_says_that_it_failed_is_told_from_one_that_says_nothing(status: int) -> None:
    failed = judge(batch("a"), Response(status=status, body=body(success=False)))
    assert isinstance(failed, Ambiguous)
    assert failed.cause == f"HTTP {status} with success: false"


def test_a_success_that_names_none_of_the_events_says_so() -> None:
    verdict = judge(batch("a", "b"), Response(status=200, body=body([])))
    assert verdict == Ambiguous(cause="HTTP 200 that names no event")


@pytest.mark.parametrize("status", [*range(100, 200), 0, 600, 999])
def test_a_status_that_http_does_not_know_tells_nothing(status: int) -> None:
    assert isinstance(judge(batch("a"), Response(status=status, body=body(["a"]))), Ambiguous)


def test_a_conflict_is_a_delivery_once_the_event_stands_alone() -> None:
    closing = fragment("s", SESSION, b"{}")
    conflict = Response(status=409)
    assert judge(batch("a"), conflict) == Delivered()
    assert isinstance(judge(batch("a", "b"), conflict), Refused)
    with_closing = Batch(key=SESSION, fragments=(fragment("a", SESSION), closing))
    assert isinstance(judge(with_closing, conflict), Refused)
    assert isinstance(judge(UPDATE, conflict), Refused)


def test_the_id_of_the_session_is_no_event_of_the_servers_own() -> None:
    both = Batch(key=SESSION, fragments=(fragment("a", SESSION), fragment("b", SESSION)))
    verdict = judge(both, Response(status=200, body=body(["a", "S"])))
    assert isinstance(verdict, Partly)
    assert verdict.attributed
    assert [each.event_id for each in verdict.rest] == ["b"]


def test_a_closing_is_not_looked_for_among_the_ids() -> None:
    closing = fragment("s", SESSION, b"{}")
    both = Batch(key=SESSION, fragments=(fragment("a", SESSION), closing))
    assert judge(both, Response(status=200, body=body(["a"]))) == Delivered()


def test_no_cause_shows_what_the_body_held() -> None:
    for status in (200, 400, 401, 413, 429, 500, 502):
        verdict = judge(batch("a", "b"), Response(status=status, body=body(["x"], ["secret"], False)))
        assert "secret" not in repr(getattr(verdict, "cause", ""))


@given(
    st.sampled_from([200, 500]),
    st.lists(st.sampled_from("abcdAB"), min_size=1, max_size=6),
    st.lists(st.sampled_from("abcdABxyz"), max_size=8),
    st.integers(0, 6),
)
def test_every_fragment_is_judged_once(status: int, sent: list[str], named: list[str], errors: int) -> None:
    made = batch(*sent)
    verdict = judge(made, Response(status=status, body=body(named, ["x"] * errors)))
    if isinstance(verdict, Partly):
        judged = [*verdict.delivered, *verdict.rest]
        assert sorted(map(id, judged)) == sorted(map(id, made.fragments))
        assert verdict.rest
        assert verdict.accounted is (errors >= len(verdict.rest))
        lower = [name.lower() for name in named]
        for name in {event_id.lower() for event_id in sent}:
            delivered = sum(fragment.event_id.lower() == name for fragment in verdict.delivered)
            assert delivered == min(lower.count(name), [e.lower() for e in sent].count(name))
