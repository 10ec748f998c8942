"""The endpoint's bytes, in and out. The oracle is the standard library's `json` and `email`."""

import datetime as dt
import json
import time
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyhive_batcher.core.fragment import SESSIONLESS, Closing, Fragment, GroupKey
from honeyhive_batcher.core.model import Batch
from honeyhive_batcher.core.wire import (
    MAX_RETRY_AFTER,
    ReplyFacts,
    body_size,
    build_request,
    overhead,
    read_reply,
    retry_after,
)

SESSION = GroupKey(session_id="s", properties=b'{"session_id":"s"}')
WALL = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110


def fragment(data: bytes, key: GroupKey = SESSIONLESS, closing: bytes = b"") -> Fragment:
    if closing:
        return Closing(data, "e", key, 1, 0.0, closing=closing)
    return Fragment(data, "e", key, 1, 0.0)


def batch(key: GroupKey, *fragments: Fragment) -> Batch:
    return Batch(key=key, fragments=fragments)


def test_events_without_session_travel_as_an_array_in_their_order() -> None:
    request = build_request(batch(SESSIONLESS, fragment(b'{"a":1}'), fragment(b'{"a":2}')))
    assert (request.method, request.path) == ("POST", "/events/model/batch")
    assert request.body == b'{"model_events":[{"a":1},{"a":2}]}'


def test_events_of_a_session_travel_with_its_properties() -> None:
    body = build_request(batch(SESSION, fragment(b'{"a":1}', SESSION))).body
    assert json.loads(body) == {
        "model_events": [{"a": 1}],
        "is_single_session": True,
        "session_properties": {"session_id": "s"},
    }


def test_a_closing_that_rides_along_replaces_the_properties() -> None:
    closing = fragment(b'{"event_id":"s"}', SESSION, b'{"session_id":"s","outputs":{}}')
    request = build_request(batch(SESSION, fragment(b'{"a":1}', SESSION), closing))
    assert request.path == "/events/model/batch"
    assert json.loads(request.body) == {
        "model_events": [{"a": 1}],
        "is_single_session": True,
        "session_properties": {"session_id": "s", "outputs": {}},
    }


def test_a_closing_that_is_alone_is_an_update_of_the_session() -> None:
    request = build_request(batch(SESSION, fragment(b'{"event_id":"s"}', SESSION, b"{}")))
    assert (request.method, request.path, request.body) == ("PUT", "/events", b'{"event_id":"s"}')


@given(
    st.lists(st.binary(min_size=2, max_size=40), min_size=1, max_size=20),
    st.none() | st.binary(min_size=2, max_size=40),
    st.none() | st.binary(min_size=1, max_size=60),
)
def test_the_size_of_a_body_is_known_without_making_it(
    events: list[bytes], properties: bytes | None, closing: bytes | None
) -> None:
    key = SESSIONLESS if properties is None else GroupKey(session_id="s", properties=properties)
    fragments = [fragment(data, key) for data in events]
    if properties is not None and closing is not None:
        fragments.append(fragment(b"{}", key, closing))
    made = batch(key, *fragments)
    assert body_size(made) == len(build_request(made).body)
    assert overhead(key) == len(build_request(batch(key, fragment(b"", key))).body)


def test_the_size_of_an_update_is_that_of_its_body() -> None:
    update = batch(SESSION, fragment(b'{"event_id":"s"}', SESSION, b'{"much":"more"}'))
    assert body_size(update) == len(build_request(update).body) == 16


def test_more_is_read_of_the_reply_to_a_larger_batch() -> None:
    """Each event may add an id and an error message to the reply."""
    one = build_request(batch(SESSIONLESS, fragment(b"{}")))
    many = build_request(batch(SESSIONLESS, *[fragment(b"{}")] * 100))
    assert one.max_reply_bytes >= 64 * 1024
    update = build_request(batch(SESSION, fragment(b"{}", SESSION, b"{}")))
    assert update.max_reply_bytes == one.max_reply_bytes
    assert many.max_reply_bytes - one.max_reply_bytes >= 99 * (39 + 100)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502 Bad Gateway</html>",
        b'{"event_ids": ["a"',
        b"null",
        b"[]",
        b'"event_ids"',
        b"\xff\xfe",
        b"{}",
        b'{"event_ids": null}',
        b'{"event_ids": "a"}',
        b'{"event_ids": {"a": 1}, "errors": {"b": 2}, "success": null}',
        b'{"event_ids": 5, "errors": "x", "success": "no"}',
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_of_another_shape_says_nothing(body: bytes) -> None:
    assert read_reply(body) == ReplyFacts()


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (b'{"event_ids":["a","b"],"success":true}', ReplyFacts(event_ids=("a", "b"))),
        (b'{"event_ids":[],"errors":[]}', ReplyFacts(event_ids=())),
        (b'{"event_ids":["a",1,null,["b"]]}', ReplyFacts(event_ids=("a", "1"))),
        (b'{"errors":["x",{"y":1}]}', ReplyFacts(errors=2)),
        (b'{"success":false}', ReplyFacts(success=False)),
        (b'{"success":0}', ReplyFacts()),
        (
            b' {"event_ids":["a"],"errors":["e"],"success":false} ',
            ReplyFacts(event_ids=("a",), errors=1, success=False),
        ),
    ],
)
def test_ids_errors_and_success_are_read_from_a_body(body: bytes, facts: ReplyFacts) -> None:
    assert read_reply(body) == facts


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_body_raises(body: bytes) -> None:
    assert isinstance(read_reply(body), ReplyFacts)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("5", 5.0),
        (" 120 ", 120.0),
        ("3599", 3599.0),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("9" * 5000, 3600.0),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:50:37 1994", 60.0),  # names no zone: UTC
        ("Sun, 06 Nov 1994 08:50:37 -0000", 60.0),
        ("Sun, 06 Nov 1994 09:50:37 +0100", 60.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("soon", None),
        ("٣", None),
        ("²", None),
        ("Sun, 06 Nov 1994 99:99:99 GMT", None),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999 08:49:37 GMT", None),
    ],
)
def test_retry_after_is_understood_in_both_forms_and_bounded(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after(value, wall=WALL) == seconds


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of a process cannot be set here")
def test_a_date_without_a_zone_is_utc_wherever_the_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert retry_after("Sun Nov  6 08:50:37 1994", wall=WALL) == 60.0
    time.tzset()


@given(st.integers(0, 10_000))
def test_a_date_asks_for_the_seconds_until_it(seconds: int) -> None:
    at = dt.datetime.fromtimestamp(WALL, dt.UTC) + dt.timedelta(seconds=seconds)
    assert retry_after(format_datetime(at, usegmt=True), wall=WALL) == min(seconds, MAX_RETRY_AFTER)


@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,2} (Nov|Dec) [0-9]{1,5} [0-9:]{1,9} ?[-+A-Z0-9]{0,6}")
)
def test_no_header_raises_or_asks_for_more_than_an_hour(value: str) -> None:
    seconds = retry_after(value, wall=WALL)
    assert seconds is None or 0.0 <= seconds <= 3600.0
