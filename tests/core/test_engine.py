"""What the engine does with every kind of reply: exact instants, exact bodies, exact fates."""

import itertools
from collections.abc import Iterable
from typing import Literal

import pytest

from honeyhive_batcher.core import wire
from honeyhive_batcher.core.model import (
    Admission,
    Attempt,
    DropReason,
    Endpoint,
    Failure,
    Fate,
    Phase,
    Reply,
    Response,
)
from honeyhive_batcher.errors import InternalError
from tests.core.rig import LOST, UNSENT, Rig, Sent, Server, answer, body_of, event, named, session

# With a jitter of 0.5 the back-offs of a batch are 0.25, 0.5, 1, 2, 4 seconds.


def in_flight(rig: Rig, *names: str) -> Sent:
    """Push, flush and begin the one request that carries these."""
    rig.push(*names)
    rig.flush()
    rig.poll_one()
    assert rig.sent[-1].ids == names
    return rig.sent[-1]


def refusing(poison: Iterable[str], status: int = 400) -> Server:
    """A server that answers with an opaque refusal as long as one of these is in the body."""
    bad = set(poison)
    return lambda sent: answer(status) if bad.intersection(sent.ids) else sent.all_named


def healthy(sent: Sent) -> Response:
    return sent.all_named


def failing(reply: Reply, *, until: float, rig: Rig) -> Server:
    """A server that answers with `reply` until that instant, and is healthy from then on."""
    return lambda sent: reply if rig.now < until else sent.all_named


# Ripe, cut, delivered.


def test_a_lone_event_leaves_after_the_flush_interval_and_a_full_batch_at_once() -> None:
    rig = Rig(max_batch_events=3, flush_interval=1.0)
    rig.push("a")
    assert rig.poll() == []
    assert rig.engine.wake_at() == 1.0
    rig.now = 0.4
    rig.push("b", "c")
    rig.poll_one()
    assert rig.sent[0].ids == ("a", "b", "c")
    assert rig.sent[0].body == body_of(event("a"), event("b"), event("c"))
    assert (rig.sent[0].method, rig.sent[0].path) == ("POST", "/events/model/batch")
    rig.push("d")
    assert rig.engine.wake_at() == 1.4
    rig.send_at(1.4)
    assert rig.sent[1].ids == ("d",)


def test_with_nothing_held_only_a_push_makes_work() -> None:
    rig = Rig()
    assert rig.engine.wake_at() is None
    sent = in_flight(rig, "a")
    assert rig.engine.wake_at() is None
    rig.reply(sent.attempt, sent.all_named)
    assert rig.engine.wake_at() is None
    assert rig.poll() == []
    rig.assert_settled()


def test_an_event_cannot_be_settled_twice() -> None:
    rig = Rig()
    sent = in_flight(rig, "a", "b")
    rig.reply(sent.attempt, named("a", status=500))
    before = rig.statistics
    with pytest.raises(InternalError, match="a was settled twice"):
        rig.intake.settle(sent.attempt.batch.fragments[::-1], Fate.DELIVERED)
    assert rig.statistics == before
    assert rig.fate("b") is None


def test_a_barrier_counts_what_was_held_when_it_was_raised_and_nothing_else() -> None:
    rig = Rig(max_batch_events=2)
    rig.push("a", "b", "c")
    barrier = rig.intake.raise_barrier()
    rig.push("d")
    rig.poll()
    assert [sent.ids for sent in rig.sent] == [("a", "b"), ("c", "d")]
    rig.reply(rig.sent[1].attempt, named("c", "d"))
    assert (barrier.held, barrier.delivered) == (2, 1)
    rig.reply(rig.sent[0].attempt, named("foreign"))
    assert (barrier.held, barrier.delivered, barrier.unconfirmed, barrier.dropped) == (0, 1, 2, 0)


def test_a_body_is_at_most_max_batch_bytes_long() -> None:
    for padding, together in [(478, 2), (479, 2), (480, 1)]:
        rig = Rig(max_batch_bytes=1024)
        rig.push("a", padding=479)
        rig.push("b", padding=padding)
        rig.flush()
        rig.poll()
        assert len(rig.sent[0].ids) == together
        assert len(rig.sent[0].body) <= 1024
    assert len(body_of(event("a", 479), event("b", 479))) == 1024


def test_a_second_reply_to_an_attempt_is_an_internal_error_and_changes_nothing() -> None:
    rig = Rig()
    sent = in_flight(rig, "a")
    rig.reply(sent.attempt, sent.all_named)
    before = rig.statistics
    with pytest.raises(InternalError, match="not in flight"):
        rig.engine.complete(sent.attempt, LOST, rig.now)
    assert rig.statistics == before


def test_requests_are_counted_and_what_made_each_batch_be_cut() -> None:
    rig = Rig(max_batch_events=2, flush_interval=1.0)
    rig.push("a", "b", "c", "d", "e")
    rig.poll()
    assert (rig.statistics.requests, rig.statistics.retries) == (2, 0)
    assert rig.statistics.batches == {"full": 2}
    rig.reply(rig.sent[1].attempt, named("c", "d"))
    rig.reply(rig.sent[0].attempt, LOST)
    rig.send_at(0.25)
    assert (rig.statistics.requests, rig.statistics.retries) == (3, 1)
    rig.reply(rig.sent[2].attempt, named("a", "b"))
    rig.send_at(1.0)
    in_flight(rig, "f")
    assert (rig.statistics.requests, rig.statistics.retries) == (5, 1)
    assert rig.statistics.batches == {"full": 2, "interval": 1, "flush": 1}


# Partial success.


def test_what_a_partial_500_does_not_name_is_sent_again_alone_with_the_same_bytes() -> None:
    rig = Rig()
    sent = in_flight(rig, "a", "b", "c", "d")
    rig.reply(sent.attempt, named("c", "a", status=500, errors=2), at=0.1)
    assert rig.with_fate("delivered") == {"a", "c"}
    rig.send_at(0.35)
    assert rig.sent[1].body == body_of(event("b"), event("d"))
    rig.reply(rig.sent[1].attempt, named("b", "d"), at=0.5)
    assert rig.with_fate("delivered") == {"a", "b", "c", "d"}
    assert rig.statistics.retries == 1
    rig.assert_settled()


def test_what_is_left_out_and_accounted_for_twice_is_dropped_as_rejected() -> None:
    rig = Rig()
    sent = in_flight(rig, "a", "b", "c")
    rig.reply(sent.attempt, named("b", status=500, errors=2))
    again = rig.send_at(0.25)
    rig.reply(again, named(status=500, errors=2))
    assert rig.with_fate("rejected") == {"a", "c"}
    assert len(rig.sent) == 2
    assert rig.statistics.last_error == "HTTP 500"
    rig.assert_settled()


def test_what_is_left_out_when_no_retry_is_left_is_rejected() -> None:
    rig = Rig(max_retries=0)
    rig.reply(in_flight(rig, "a", "b").attempt, named("a", status=500, errors=1))
    assert (rig.fate("a"), rig.fate("b")) == ("delivered", "rejected")


def test_a_partial_500_that_makes_progress_is_no_reason_to_drop_the_rest() -> None:
    rig = Rig(max_retries=5)
    sent = in_flight(rig, "a", "b", "c")
    rig.reply(sent.attempt, named("b", status=500, errors=2))
    rig.reply(rig.send_at(0.25), named("a", status=500, errors=1))
    again = rig.send_at(0.75)
    assert rig.sent[-1].ids == ("c",)
    rig.reply(again, named("c"))
    assert rig.with_fate("delivered") == {"a", "b", "c"}


def test_a_rest_that_is_never_accounted_for_is_given_up_as_retries_exhausted() -> None:
    rig = Rig(max_retries=2)
    sent = in_flight(rig, "a", "b", "c", "d")
    rig.reply(sent.attempt, named("d", status=500))
    rig.reply(rig.send_at(0.25), named("c", status=500))
    rig.reply(rig.send_at(0.75), named("b", status=500))
    assert rig.with_fate("delivered") == {"b", "c", "d"}
    assert rig.fate("a") == "retries_exhausted"
    rig.assert_settled()


def test_a_200_with_fewer_ids_is_a_partial_success() -> None:
    rig = Rig()
    sent = in_flight(rig, "a", "b")
    rig.reply(sent.attempt, named("a"))
    rig.send_at(0.25)
    assert rig.sent[-1].ids == ("b",)


def test_ids_are_compared_without_regard_to_case() -> None:
    """They are UUIDs, and a server may write them in either."""
    rig = Rig()
    sent = in_flight(rig, "a", "B", "c")
    rig.reply(sent.attempt, named("A", "b", status=500, errors=1))
    assert rig.with_fate("delivered") == {"a", "B"}
    rig.send_at(0.25)
    assert rig.sent[-1].ids == ("c",)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("on_ambiguous", ["retry", "drop"])
def test_foreign_ids_leave_what_is_not_named_unconfirmed(
    status: int, on_ambiguous: Literal["retry", "drop"]
) -> None:
    """Some of it was created, nobody knows which: a retry would create some of it twice."""
    rig = Rig(on_ambiguous=on_ambiguous)
    sent = in_flight(rig, "a", "b", "c")
    rig.reply(sent.attempt, named("b", "foreign", status=status))
    assert rig.with_fate("delivered") == {"b"}
    assert rig.with_fate("unconfirmed") == {"a", "c"}
    assert rig.statistics.last_error == f"HTTP {status} that names events by other ids"
    rig.assert_settled()


def test_a_closing_arrived_with_events_that_were_created_under_foreign_ids() -> None:
    rig = Rig()
    key = session("s")
    rig.push("a", "b", key=key)
    rig.close_session(key, key.properties)
    rig.flush()
    rig.reply(rig.poll_one(), named("foreign"))
    assert rig.with_fate("unconfirmed") == {"a", "b"}
    assert rig.with_fate("delivered") == {"end of s"}
    rig.assert_settled()


def test_what_a_server_names_beside_its_own_failure_is_not_sent_again() -> None:
    rig = Rig()
    sent = in_flight(rig, "a", "b")
    rig.reply(sent.attempt, Response(status=500, body=b'{"success":false,"event_ids":["a"],"errors":["x"]}'))
    assert rig.fate("a") == "delivered"
    rig.send_at(0.25)
    assert rig.sent[1].ids == ("b",)


def test_a_conflict_is_found_by_halves_and_counts_as_delivered() -> None:
    rig = Rig()
    sent = in_flight(rig, "a", "b")
    rig.reply(sent.attempt, answer(409))
    rig.reply(rig.poll_one(), answer(409))
    rig.reply(rig.poll_one(), named("b"))
    assert rig.with_fate("delivered") == {"a", "b"}
    rig.assert_settled()


@pytest.mark.parametrize(
    "reply",
    [
        Response(status=200),
        Response(status=200, body=b"<html>thanks</html>"),
        Response(status=204, body=b'{"event_ids": null}'),
        Response(status=200, body=b'{"success": true, "event_ids": "a"}'),
        named("1", "2"),
        named("B", "A"),
        named("a", "b", "c"),
        named("a", "b", status=500, errors=2),
    ],
    ids=repr,
)
def test_an_answer_that_leaves_nothing_out_delivers_all(reply: Response) -> None:
    rig = Rig()
    sent = in_flight(rig, "a", "b")
    rig.reply(sent.attempt, reply)
    assert rig.with_fate("delivered") == {"a", "b"}
    rig.assert_settled()


@pytest.mark.parametrize(
    "reply",
    [
        answer(500),
        answer(502),
        answer(504),
        answer(599),
        LOST,
        Response(status=500, body=b'{"event_ids": 3, "errors": {"a": 1}}'),
        Response(status=500, body=b'{"event_ids": [null, []], "errors": ["x"]}'),
        Response(status=500, body=b"[" * 100_000),
        Response(status=500, body=b'["a", "b"]'),
        Response(status=500, body=b'\xff{"event_ids": ["a"]}'),
        Response(status=200, body=b'{"success": false}'),
        named(),
        Response(status=500, body=b'{"success": false, "event_ids": ["foreign"], "errors": ["x"]}'),
    ],
    ids=lambda reply: repr(reply)[:60],
)
def test_a_reply_that_tells_nothing_is_ambiguous(reply: Reply) -> None:
    again, once = Rig(on_ambiguous="retry"), Rig(on_ambiguous="drop")
    for rig in (again, once):
        rig.reply(in_flight(rig, "a", "b").attempt, reply)
    assert once.with_fate("unconfirmed") == {"a", "b"}
    once.assert_settled()
    again.send_at(0.25)
    assert again.sent[1].body == again.sent[0].body
    again.abandon()
    assert again.with_fate("unconfirmed") == {"a", "b"}


TEN = tuple("abcdefghij")
SUBSETS = [tuple(name for bit, name in enumerate(TEN) if mask >> bit & 1) for mask in range(1 << len(TEN))]


@pytest.mark.parametrize("is_accounted", [True, False], ids=["accounted", "unaccounted"])
def test_no_subset_of_a_batch_that_was_named_is_ever_sent_again(is_accounted: bool) -> None:
    """All 1,024 subsets of ten events: the named are sent once, the others twice, all are delivered."""
    for subset in SUBSETS:
        rig = Rig()
        sent = in_flight(rig, *TEN)
        errors = len(TEN) - len(subset) if is_accounted else 0
        rig.reply(sent.attempt, named(*subset, status=500, errors=errors))
        rig.serve(healthy)
        assert [each.ids for each in rig.sent[1:]] == (
            [tuple(name for name in TEN if name not in subset)] if len(subset) < len(TEN) else []
        )
        assert rig.with_fate("delivered") == set(TEN)
        rig.assert_settled()


def test_whatever_subset_the_server_rejects_costs_two_requests_and_one_fate_each() -> None:
    for rejected in SUBSETS:
        rig = Rig()
        in_flight(rig, *TEN)

        def partly(sent: Sent, bad: tuple[str, ...] = rejected) -> Response:
            good = [name for name in sent.ids if name not in bad]
            return named(*good, status=500, errors=len(sent.ids) - len(good))

        rig.reply(rig.sent[0].attempt, partly(rig.sent[0]))
        rig.serve(partly)
        assert len(rig.sent) == (2 if rejected else 1)
        assert rig.with_fate("rejected") == set(rejected)
        assert rig.with_fate("delivered") == set(TEN) - set(rejected)
        rig.assert_settled()


def test_of_two_events_with_one_id_only_as_many_are_delivered_as_were_named() -> None:
    rig = Rig()
    sent = in_flight(rig, "twin", "other", "twin")
    rig.reply(sent.attempt, named("twin", "other", status=500, errors=1))
    rig.send_at(0.25)
    assert rig.sent[-1].ids == ("twin",)
    rig.reply(rig.sent[-1].attempt, named("twin"))
    assert rig.fates["twin"] == ["delivered", "delivered"]
    rig.assert_settled()


# Poison.


@pytest.mark.parametrize("index", [0, 1, 2, 499, 500, 501, 624, 731, 875, 998, 999])
def test_one_poison_among_a_thousand_costs_one_event_and_at_most_21_requests(index: int) -> None:
    rig = Rig(max_batch_events=1000)
    names = rig.push_many(1000)
    rig.serve(refusing([names[index]]))
    assert len(rig.sent) <= 21
    assert rig.with_fate("rejected") == {names[index]}
    assert len(rig.with_fate("delivered")) == 999
    rig.assert_settled()


@pytest.mark.parametrize(("one", "other"), [(0, 999), (499, 500), (250, 750), (3, 4), (0, 1), (998, 999)])
def test_two_poisons_cost_two_events(one: int, other: int) -> None:
    rig = Rig(max_batch_events=1000)
    names = rig.push_many(1000)
    rig.serve(refusing([names[one], names[other]], status=422))
    assert len(rig.sent) <= 41
    assert rig.with_fate("rejected") == {names[one], names[other]}
    assert len(rig.with_fate("delivered")) == 998
    rig.assert_settled()


@pytest.mark.parametrize("poisons", [1, 7, 20, 50])
def test_a_run_of_poison_at_the_head_of_a_batch_costs_no_good_event(poisons: int) -> None:
    """Before a batch is given up, single events from all over it are tried."""
    rig = Rig()
    names = rig.push_many(100)
    rig.serve(refusing(names[:poisons]))
    assert rig.with_fate("rejected") == set(names[:poisons])
    assert rig.with_fate("delivered") == set(names[poisons:])


def test_the_pieces_of_a_refused_batch_go_one_after_another_at_once() -> None:
    rig = Rig()
    in_flight(rig, "a", "b", "c", "d", "e")
    for refused, following in [(True, "abc"), (True, "ab"), (False, "c"), (True, "de"), (True, "d")]:
        sent = rig.sent[-1]
        rig.reply(sent.attempt, answer(400) if refused else sent.all_named)
        rig.poll_one()
        assert "".join(rig.sent[-1].ids) == following
        assert rig.engine.wake_at() is None
    assert rig.now == 0.0
    assert rig.with_fate("delivered") == {"a", "b"}
    assert rig.with_fate("rejected") == {"c"}


def test_a_server_that_refuses_everything_is_noticed_after_few_requests() -> None:
    rig = Rig(max_batch_events=100, max_in_flight=1)
    names = rig.push_many(100, "first")
    rig.serve(refusing(names))
    assert len(rig.sent) <= 15
    assert rig.with_fate("rejected") == set(names)
    assert rig.statistics.last_error == "HTTP 400 for every event, so not for one of them"
    rig.assert_settled()
    for batch in range(5):
        before = len(rig.sent)
        names = rig.push_many(100, f"next{batch}-")
        rig.serve(refusing(names))
        assert len(rig.sent) - before <= 3
        assert rig.with_fate("rejected") >= set(names)
    names = rig.push_many(100, "healed")
    rig.serve(healthy)
    assert rig.with_fate("delivered") == set(names)
    names = rig.push_many(100, "later")
    rig.serve(refusing([names[0], names[99]]))
    assert rig.with_fate("delivered") >= set(names[1:99])
    rig.assert_settled()


@pytest.mark.parametrize(
    ("between", "requests"),
    [
        (named("a", "b"), 15),  # the server takes events again: look for the one that it does not take
        (named("a", status=500, errors=1), 15),
        (named("foreign", status=500), 15),
        (named(status=500, errors=2), 3),
        (LOST, 3),
    ],
)
def test_a_server_that_refused_everything_is_believed_until_it_takes_something(
    between: Reply, requests: int
) -> None:
    rig = Rig(on_ambiguous="drop", max_retries=0)
    rig.push_many(100, "refused")
    rig.flush()
    rig.serve(lambda sent: answer(400))
    rig.reply(in_flight(rig, "a", "b").attempt, between)
    before = len(rig.sent)
    rig.push_many(100, "refused again")
    rig.flush()
    rig.serve(lambda sent: answer(400))
    assert len(rig.sent) - before == requests
    rig.assert_settled()


def test_a_piece_of_which_the_server_took_a_part_shows_that_it_takes_events() -> None:
    rig = Rig()
    names = rig.push_many(16)
    rig.flush()
    good = {"e0", "e15"}

    def server(sent: Sent) -> Reply:
        if sent.ids == tuple(names[:8]):
            return named("e0", status=500, errors=7)
        return sent.all_named if good.issuperset(sent.ids) else answer(400)

    rig.serve(server)
    assert rig.with_fate("delivered") == good
    assert rig.with_fate("rejected") == {*names} - good


def test_a_piece_that_fails_otherwise_keeps_its_place_in_the_search() -> None:
    rig = Rig(max_retries=1, on_ambiguous="retry")
    rig.reply(in_flight(rig, "a", "b", "c", "d").attempt, answer(400))
    rig.reply(rig.poll_one(), answer(503))
    assert rig.poll() == []
    again = rig.send_at(0.25)
    assert rig.sent[-1].ids == ("a", "b")
    rig.reply(again, answer(503))
    assert rig.with_fate("retries_exhausted") == {"a", "b"}
    rig.serve(healthy)
    assert rig.sent[-1].ids == ("c", "d")
    assert rig.with_fate("delivered") == {"c", "d"}
    rig.assert_settled()


def test_what_a_piece_of_a_search_leaves_out_is_tried_again_within_it() -> None:
    rig = Rig()
    rig.reply(in_flight(rig, "a", "b", "c", "d").attempt, answer(400))
    rig.reply(rig.poll_one(), named("a", status=500))
    rig.serve(refusing(["c"]))
    assert [each.ids for each in rig.sent[1:]] == [("a", "b"), ("b",), ("c", "d"), ("c",), ("d",)]
    assert rig.with_fate("rejected") == {"c"}
    rig.assert_settled()


def test_a_number_that_is_not_json_is_mended_after_a_refusal() -> None:
    """A `Decimal("NaN")` passes the encoder as it is."""
    rig = Rig()
    rig.push_bytes("a", b'{"event_id":"a","cost":NaN,"note":"NaN -Infinity","rates":[-Infinity,1]}')
    rig.push("b")
    rig.flush()
    rig.reply(rig.poll_one(), answer(400))
    mended = rig.poll_one()
    assert rig.sent[-1].body == body_of(
        b'{"event_id":"a","cost":null,"note":"NaN -Infinity","rates":[null,1]}', event("b")
    )
    rig.reply(mended, named("a", "b"))
    assert rig.with_fate("delivered") == {"a", "b"}
    rig.assert_settled()


def test_what_cannot_be_mended_is_searched_for_like_any_poison() -> None:
    """Raw bytes of the application's own may be anything; the search has to end."""
    rig = Rig()
    rig.push("a", "b")
    rig.push_bytes("junk", b'{"event_id":"junk","x":no json, NaN}')
    rig.flush()
    bodies: list[bytes] = []
    for _ in range(20):
        for attempt in rig.engine.poll(rig.now):
            body = wire.build_request(attempt.batch).body
            bodies.append(body)
            rig.reply(attempt, answer(400 if b"no json" in body else 200))
    assert len(bodies) == 4
    assert rig.with_fate("rejected") == {"junk"}
    assert rig.with_fate("delivered") == {"a", "b"}


# Too large.


def test_413_halves_the_batch_and_the_size_is_remembered() -> None:
    rig = Rig(max_batch_events=8)
    names = [f"event-{index}" for index in range(8)]
    rig.push(*names, padding=100)
    rig.flush()
    rig.reply(rig.poll_one(), answer(413), at=0.1)
    refused = len(rig.sent[0].body)
    halves = rig.poll()
    assert [sent.ids for sent in rig.sent[1:]] == [tuple(names[:4]), tuple(names[4:])]
    for attempt in halves:
        rig.reply(attempt, answer(200))
    assert rig.with_fate("delivered") == set(names)
    later = [f"later-{index}" for index in range(8)]
    rig.push(*later, padding=100)
    rig.serve(healthy)
    assert all(len(sent.body) <= refused // 2 for sent in rig.sent[3:])
    assert [len(sent.ids) for sent in rig.sent[3:]] == [3, 3, 2]
    assert rig.with_fate("delivered") == {*names, *later}
    rig.assert_settled()


def test_two_events_that_are_too_large_together_are_delivered_one_by_one() -> None:
    rig = Rig()
    rig.push("a", "b", padding=600)
    rig.serve(lambda sent: answer(413) if len(sent.body) > 1000 else sent.all_named)
    assert rig.with_fate("delivered") == {"a", "b"}


def test_a_single_event_that_is_too_large_is_dropped_and_the_others_are_delivered() -> None:
    rig = Rig()
    rig.push("a", "b")
    rig.push("huge", padding=5000)
    rig.push("c", "d")
    rig.serve(lambda sent: answer(413) if len(sent.body) > 1000 else sent.all_named)
    assert rig.fate("huge") == "too_large"
    assert rig.with_fate("delivered") == {"a", "b", "c", "d"}
    rig.assert_settled()


def test_a_single_event_that_is_too_large_within_a_search_does_not_end_it() -> None:
    rig = Rig(max_batch_events=4)
    rig.push("a", "huge", "c", "poison")

    def server(sent: Sent) -> Reply:
        if len(sent.ids) > 1 or sent.ids == ("poison",):
            return answer(400)
        return answer(413) if sent.ids == ("huge",) else sent.all_named

    rig.serve(server)
    assert (rig.fate("huge"), rig.fate("poison")) == ("too_large", "rejected")
    assert rig.with_fate("delivered") == {"a", "c"}
    rig.assert_settled()


def test_413_within_a_search_goes_on_with_the_search() -> None:
    rig = Rig()
    rig.reply(in_flight(rig, *TEN).attempt, answer(400))
    rig.reply(rig.poll_one(), answer(413))
    rig.serve(refusing(["b"]))
    assert rig.with_fate("rejected") == {"b"}
    assert rig.with_fate("delivered") == set(TEN) - {"b"}
    assert rig.sent[-1].ids == tuple("fghij")
    rig.assert_settled()


# A session's closing.

END = b'{"session_id":"s","outputs":{"answer":1}}'


def in_session(rig: Rig, *names: str) -> Sent:
    """Begin the request with these events of a session and its closing."""
    key = session("s")
    rig.push(*names, key=key)
    rig.close_session(key, END)
    rig.flush()
    rig.poll_one()
    assert rig.sent[-1].ids == names
    assert rig.sent[-1].properties == {"session_id": "s", "outputs": {"answer": 1}}
    return rig.sent[-1]


def assert_is_update(sent: Sent) -> None:
    assert (sent.method, sent.path) == ("PUT", "/events")
    assert sent.body == b'{"event_id":"s","outputs":{}}'


def test_a_closing_rides_with_the_last_batch_of_its_session() -> None:
    rig = Rig()
    sent = in_session(rig, "a", "b")
    rig.reply(sent.attempt, sent.all_named)
    assert rig.with_fate("delivered") == {"a", "b", "end of s"}
    rig.assert_settled()


def test_a_closing_alone_waits_until_the_events_of_its_session_are_settled() -> None:
    rig = Rig()
    key = session("s")
    rig.push("a", key=key)
    rig.flush()
    first = rig.poll_one()
    rig.close_session(key, END)
    rig.flush()
    assert rig.poll() == []
    assert rig.engine.wake_at() is None
    rig.reply(first, answer(503), at=0.5)
    again = rig.send_at(0.75)
    assert rig.poll() == []
    rig.reply(again, named("a"))
    rig.poll_one()
    assert_is_update(rig.sent[-1])
    rig.reply(rig.sent[-1].attempt, answer(200))
    rig.assert_settled()


def test_a_closing_that_would_make_a_body_too_long_follows_as_an_update() -> None:
    rig = Rig(max_batch_bytes=1024)
    key = session("s")
    rig.push("a", key=key, padding=400)
    rig.close_session(key, b'{"session_id":"s","outputs":"' + b"y" * 600 + b'"}')
    rig.serve(healthy)
    assert [sent.method for sent in rig.sent] == ["POST", "PUT"]
    assert rig.sent[0].properties == {"session_id": "s"}
    rig.assert_settled()


def test_a_closing_is_delivered_with_any_event_of_its_batch() -> None:
    rig = Rig()
    sent = in_session(rig, "a", "b")
    rig.reply(sent.attempt, named("b", status=500, errors=1))
    assert rig.with_fate("delivered") == {"b", "end of s"}
    rig.send_at(0.25)
    assert rig.sent[-1].ids == ("a",)
    assert rig.sent[-1].properties == {"session_id": "s"}


def test_a_closing_stays_with_a_batch_of_which_nothing_was_created() -> None:
    rig = Rig()
    sent = in_session(rig, "a", "b")
    rig.reply(sent.attempt, named(status=500, errors=2))
    rig.send_at(0.25)
    assert rig.sent[-1].body == sent.body


@pytest.mark.parametrize("status", [413, 400])
def test_a_closing_leaves_a_batch_that_is_split_and_follows_as_an_update(status: int) -> None:
    rig = Rig()
    sent = in_session(rig, "a", "b", "c", "d")
    rig.reply(sent.attempt, answer(status))
    rig.serve(healthy)
    assert [each.ids for each in rig.sent[1:]] == [("a", "b"), ("c", "d"), ("s",)]
    assert all(each.properties == {"session_id": "s"} for each in rig.sent[1:3])
    assert_is_update(rig.sent[3])
    assert rig.with_fate("delivered") == {"a", "b", "c", "d", "end of s"}
    rig.assert_settled()


@pytest.mark.parametrize("status", [413, 400])
def test_a_single_event_is_not_blamed_for_the_closing_that_rides_along(status: int) -> None:
    """The final properties may be what the server will not have: the event is tried without them."""
    rig = Rig()
    sent = in_session(rig, "a")
    rig.reply(sent.attempt, answer(status))
    rig.serve(lambda sent: answer(status) if sent.method == "PUT" else sent.all_named)
    assert [each.ids for each in rig.sent] == [("a",), ("a",), ("s",)]
    assert rig.fate("a") == "delivered"
    assert rig.fate("end of s") == ("too_large" if status == 413 else "rejected")
    rig.assert_settled()


@pytest.mark.parametrize("status", [400, 404, 410, 422])
def test_an_update_of_a_session_that_the_server_does_not_know_is_rejected_alone(status: int) -> None:
    rig = Rig()
    key = session("s")
    rig.close_session(key, END)
    rig.push("a")
    rig.serve(lambda sent: answer(status) if sent.method == "PUT" else sent.all_named)
    assert rig.fate("end of s") == "rejected"
    assert rig.fate("a") == "delivered"
    assert rig.statistics.endpoint == Endpoint.HEALTHY
    rig.assert_settled()


def test_an_update_whose_answer_is_lost_is_sent_again() -> None:
    rig = Rig()
    rig.close_session(session("s"), END)
    rig.flush()
    rig.reply(rig.poll_one(), named("s", status=500))
    rig.send_at(0.25)
    assert rig.sent[1].body == rig.sent[0].body


# A wrong setting.


@pytest.mark.parametrize("status", [301, 302, 307, 308, 401, 402, 403, 404, 405, 407, 410])
def test_a_wrong_setting_holds_the_endpoint_at_one_request_a_minute_and_loses_nothing(status: int) -> None:
    rig = Rig(max_batch_events=10)
    healed_at = 400.0
    server = failing(answer(status), until=healed_at, rig=rig)
    for second in range(500):
        rig.serve(server, until=float(second))
        rig.push(*[f"{second}-{index}" for index in range(7)])
        if second % 3 == 0:
            rig.flush()
        if second == 300:
            assert rig.statistics.endpoint == Endpoint.HELD
            assert rig.statistics.last_error == f"HTTP {status}"
            assert rig.engine.is_stalled
            assert rig.engine.wake_at() is not None
    rig.serve(server)
    held = [sent.at for sent in rig.sent if sent.at < healed_at]
    assert len(held) == 7
    assert all(later - earlier >= 60.0 for earlier, later in itertools.pairwise(held))
    recovered_at = next(sent.at for sent in rig.sent if sent.at >= healed_at)
    assert recovered_at - held[-1] < 61.0
    assert len(rig.with_fate("delivered")) == 3500
    rig.assert_settled()


def test_requests_that_were_under_way_with_the_one_that_is_held_are_held_too() -> None:
    rig = Rig(max_batch_events=1)
    rig.push("a", "b", "c")
    attempts = rig.poll()
    for at, attempt in enumerate(attempts):
        rig.reply(attempt, answer(401), at=float(at))
    assert rig.send_at(62.0).batch.events[0].event_id == "a"
    assert rig.engine.wake_at() is None
    rig.reply(rig.sent[-1].attempt, named("a"), at=63.0)
    rig.serve(lambda sent: sent.all_named)
    assert rig.with_fate("delivered") == {"a", "b", "c"}


def test_a_hold_lasts_as_long_as_the_server_asks() -> None:
    rig = Rig()
    rig.reply(in_flight(rig, "a").attempt, answer(403, retry_after=300.0), at=1.0)
    rig.send_at(301.0)


def test_a_hold_costs_a_batch_none_of_its_retries() -> None:
    rig = Rig(max_retries=1, max_elapsed=10.0)
    sent = in_flight(rig, "a")
    for minute in range(30):
        rig.reply(sent.attempt, answer(401))
        rig.send_at(60.0 * (minute + 1))
        sent = rig.sent[-1]
    rig.reply(sent.attempt, answer(503))
    assert rig.statistics.retries == 30
    rig.serve(lambda sent: named("a"))
    assert rig.fate("a") == "delivered"


def test_a_success_of_a_request_that_was_under_way_ends_a_hold() -> None:
    rig = Rig(max_batch_events=1)
    rig.push("a", "b", "c")
    first, second, _ = rig.poll()
    rig.reply(first, answer(401), at=1.0)
    assert not rig.engine.is_stalled
    rig.reply(second, named("b"), at=2.0)
    assert rig.statistics.endpoint == Endpoint.HEALTHY
    assert not rig.engine.is_stalled
    rig.serve(lambda sent: sent.all_named)
    assert rig.with_fate("delivered") == {"a", "b"}


def test_an_endpoint_at_work_is_not_stalled_when_nothing_is_under_way() -> None:
    rig = Rig()
    assert not rig.engine.is_stalled
    sent = in_flight(rig, "a")
    rig.reply(sent.attempt, sent.all_named)
    assert not rig.engine.is_stalled


def test_a_flush_hurries_nothing_while_the_endpoint_is_held() -> None:
    rig = Rig(max_batch_events=1, backoff_base=4.0)
    rig.push("a", "b")
    first, second = rig.poll()
    rig.reply(first, answer(401))
    rig.flush()
    assert rig.poll() == []
    rig.reply(second, named("b"), at=0.1)
    rig.send_at(2.0)


# Retries.


def failing_alone(rig: Rig, name: str, reply: Reply, *, times: int) -> None:
    """Let one batch fail so often while the server takes others: the fault is not the endpoint's."""
    rig.push(name)
    for number in range(times):
        rig.serve(lambda sent: reply if name in sent.ids else sent.all_named, until=rig.now + 40.0)
        rig.push(f"beside {name} {number}")


@pytest.mark.parametrize("max_retries", [0, 1, 2, 7])
@pytest.mark.parametrize("reply", [answer(500), LOST], ids=repr)
def test_max_retries_counts_attempts_that_may_have_arrived_exactly(max_retries: int, reply: Reply) -> None:
    rig = Rig(max_retries=max_retries, max_elapsed=1e6)
    in_flight(rig, "a")
    rig.reply(rig.sent[0].attempt, reply)
    rig.serve(lambda sent: reply)
    assert len(rig.sent) == max_retries + 1
    assert {sent.body for sent in rig.sent} == {rig.sent[0].body}
    assert rig.statistics.retries == max_retries
    rig.assert_settled()


def test_a_connection_that_never_stood_takes_none_of_the_retries() -> None:
    rig = Rig(max_retries=0)
    rig.reply(in_flight(rig, "a").attempt, UNSENT)
    rig.serve(healthy)
    assert rig.fate("a") == "delivered"


@pytest.mark.parametrize("status", [408, 425, 429, 503])
def test_a_batch_that_alone_is_turned_away_is_given_up(status: int) -> None:
    rig = Rig(max_retries=3, max_elapsed=1e6, max_batch_events=1)
    failing_alone(rig, "a", answer(status), times=20)
    assert rig.fate("a") == "retries_exhausted"
    assert len(rig.with_fate("delivered")) >= 19


@pytest.mark.parametrize("reply", [answer(408), answer(425), answer(429), answer(503), UNSENT], ids=repr)
def test_an_outage_costs_a_batch_nothing_however_long_it_lasts(reply: Reply) -> None:
    rig = Rig(max_retries=1, max_elapsed=120.0)
    in_flight(rig, "a")
    rig.reply(rig.sent[0].attempt, reply)
    rig.serve(lambda sent: reply, until=86_400.0)
    assert 2_800 <= len(rig.sent) <= 3_000
    rig.serve(lambda sent: sent.all_named, until=86_430.0)
    assert rig.fate("a") == "delivered"


def test_what_waited_through_an_outage_has_all_its_time_afterwards() -> None:
    """It was tried before, and its first failure since would else be its last."""
    rig = Rig(max_elapsed=120.0, max_batch_events=1, backoff_max=4.0)
    rig.push("a", "b", "c")
    rig.serve(lambda sent: answer(503), until=1_000.0)
    rig.serve(lambda sent: answer(503) if sent.at < 1_010.0 and sent.ids == ("a",) else sent.all_named)
    assert rig.with_fate("delivered") == {"a", "b", "c"}


def test_the_time_for_retries_runs_from_the_first_attempt() -> None:
    rig = Rig(max_retries=1000, max_elapsed=10.0, backoff_max=1.0, flush_interval=0.1)
    rig.push("a")
    beside = [(0.15 + number / 5, f"beside {number}") for number in range(100)]
    rig.serve(lambda sent: LOST if "a" in sent.ids else sent.all_named, pushes=beside)
    tried = [sent.at for sent in rig.sent if "a" in sent.ids]
    assert 9.0 < tried[-1] - tried[0] <= 10.0
    assert rig.fate("a") == "unconfirmed"


def test_no_retry_is_planned_beyond_max_elapsed() -> None:
    for max_elapsed, is_tried in [(0.74, False), (0.75, True)]:
        rig = Rig(max_elapsed=max_elapsed)
        in_flight(rig, "a")
        rig.reply(rig.sent[0].attempt, answer(503), at=0.5)
        assert (rig.fate("a") is None) is is_tried


@pytest.mark.parametrize(
    ("replies", "fate"),
    [
        ([answer(503), UNSENT], "retries_exhausted"),
        ([LOST, UNSENT], "unconfirmed"),
        ([answer(502), answer(503)], "unconfirmed"),
        ([answer(429), answer(500)], "unconfirmed"),
        ([named(status=500, errors=1), answer(503)], "retries_exhausted"),
    ],
)
def test_what_may_have_arrived_once_ends_as_unconfirmed(replies: list[Reply], fate: str) -> None:
    rig = Rig(max_retries=1, max_elapsed=0.3, max_batch_events=1)
    rig.push("a", "b")
    first, second = rig.poll()
    rig.reply(first, replies[0])
    rig.reply(second, named("b"))
    rig.reply(rig.send_at(0.25), replies[1])
    assert rig.fate("a") == fate
    rig.assert_settled()


@pytest.mark.parametrize("status", [400, 406, 413, 422])
def test_an_event_that_may_have_arrived_is_not_said_to_be_lost_when_it_is_refused(status: int) -> None:
    """A server may refuse it because it has it."""
    rig = Rig()
    rig.reply(in_flight(rig, "a").attempt, LOST)
    rig.reply(rig.send_at(0.25), answer(status))
    assert rig.fate("a") == "unconfirmed"
    assert rig.statistics.last_error == f"HTTP {status}"
    rig.assert_settled()


def test_an_event_that_may_have_arrived_is_not_said_to_be_lost_when_it_is_left_out() -> None:
    rig = Rig()
    rig.reply(in_flight(rig, "a", "b").attempt, LOST)
    rig.reply(rig.send_at(0.25), named("b", status=500, errors=1))
    rig.reply(rig.send_at(0.75), named(status=500, errors=1))
    assert rig.fate("a") == "unconfirmed"
    assert rig.fate("b") == "delivered"
    rig.assert_settled()


@pytest.mark.parametrize("status", [400, 413])
def test_a_closing_that_may_have_arrived_is_not_said_to_be_lost_when_queued_again(
    status: int,
) -> None:
    rig = Rig()
    key = session("s")
    rig.push("a", "b", key=key)
    rig.close_session(key, key.properties)
    rig.flush()
    rig.reply(rig.poll_one(), LOST)
    rig.reply(rig.send_at(0.25), answer(status))
    rig.abandon()
    assert rig.with_fate("unconfirmed") == {"a", "b", "end of s"}
    rig.assert_settled()


def test_only_the_piece_whose_answer_was_lost_may_have_arrived() -> None:
    rig = Rig()
    rig.reply(in_flight(rig, "a", "b", "c", "d").attempt, answer(400))
    rig.reply(rig.poll_one(), LOST)
    rig.reply(rig.send_at(0.25), named("a", "b"))
    rig.poll_one()
    assert rig.sent[-1].ids == ("c", "d")
    rig.reply(rig.sent[-1].attempt, answer(400))
    rig.serve(refusing(["c", "d"]))
    assert rig.with_fate("rejected") == {"c", "d"}
    rig.assert_settled()


# Retry-After.


@pytest.mark.parametrize("status", [408, 425, 429, 503, 500, 502])
def test_retry_after_holds_back_the_whole_endpoint(status: int) -> None:
    rig = Rig(max_batch_events=1)
    rig.reply(in_flight(rig, "a").attempt, answer(status, retry_after=7.0), at=1.0)
    rig.push("b", "c")
    rig.flush()
    assert rig.poll() == []
    rig.engine.drain()
    assert rig.poll() == []
    assert rig.engine.wake_at() == 8.0
    rig.now = 7.999
    assert rig.poll() == []
    rig.now = 8.0
    assert rig.poll() != []


@pytest.mark.parametrize(
    "reply", [answer(413, 7.0), answer(400, 7.0), named("a", status=500, retry_after=7.0)]
)
def test_retry_after_is_a_floor_whatever_the_status(reply: Reply) -> None:
    rig = Rig()
    rig.reply(in_flight(rig, "a", "b").attempt, reply, at=1.0)
    rig.push("c")
    rig.flush()
    assert rig.poll() == []
    assert rig.engine.wake_at() == 8.0
    rig.serve(healthy)
    assert rig.with_fate("delivered") == {"a", "b", "c"}


def test_a_shorter_retry_after_does_not_shorten_a_longer_one() -> None:
    rig = Rig(max_batch_events=1)
    rig.push("a", "b")
    first, second = rig.poll()
    rig.reply(first, answer(429, retry_after=30.0))
    rig.reply(second, answer(429, retry_after=1.0))
    assert rig.engine.wake_at() == 30.0


def test_a_success_does_not_lift_a_retry_after() -> None:
    rig = Rig(max_batch_events=1)
    rig.push("a", "b", "c")
    first, second, _ = rig.poll()
    rig.reply(first, answer(429, retry_after=30.0))
    rig.reply(second, named("b"))
    rig.push("d")
    rig.flush()
    assert rig.poll() == []
    assert rig.engine.wake_at() == 30.0


def test_retry_after_shorter_than_the_back_off_does_not_shorten_it() -> None:
    rig = Rig()
    rig.reply(in_flight(rig, "a").attempt, answer(503, retry_after=0.1))
    rig.send_at(0.25)


def test_to_wait_as_long_as_the_server_asks_takes_nothing_from_the_time_for_retries() -> None:
    for retry_after in (100.0, 120.5, 3600.0):
        rig = Rig(max_elapsed=120.0)
        rig.reply(in_flight(rig, "a").attempt, answer(429, retry_after=retry_after))
        rig.push("queued")
        rig.serve(healthy)
        assert rig.sent[1].at == retry_after
        assert rig.with_fate("delivered") == {"a", "queued"}


# Flush.


def test_a_flush_is_an_extra_try_that_costs_nothing_and_returns_to_its_schedule() -> None:
    rig = Rig(max_retries=1, jitter=lambda: 0.99999)
    rig.reply(in_flight(rig, "a").attempt, answer(503))
    due_at = rig.engine.wake_at()
    assert due_at is not None
    assert due_at == pytest.approx(0.5, abs=1e-4)
    for extra in range(1, 4):
        rig.now = extra / 10
        rig.flush()
        rig.reply(rig.poll_one(), UNSENT if extra == 2 else answer(503))
        assert rig.poll() == []
    rig.now = due_at
    # The extra tries failed too, so the endpoint itself is backed off; the batch's own time is kept.
    wake_at = rig.engine.wake_at()
    assert wake_at is not None
    rig.now = wake_at
    rig.reply(rig.poll_one(), named("a"))
    assert rig.fate("a") == "delivered"
    assert len(rig.sent) == 5


def test_after_an_extra_try_the_retry_comes_when_it_was_due() -> None:
    rig = Rig(max_retries=1)
    rig.reply(in_flight(rig, "a").attempt, answer(429))
    rig.now = 0.1
    rig.flush()
    rig.reply(
        rig.poll_one(), named(status=500, errors=1)
    )  # an answer of a server at work: no back-off of its own
    rig.reply(rig.send_at(0.25), named("a"))
    assert rig.fate("a") == "delivered"


def test_a_failure_after_its_time_had_come_counts_although_a_flush_began_it() -> None:
    rig = Rig(max_retries=1)
    rig.reply(in_flight(rig, "a").attempt, LOST)
    rig.now = 0.1
    rig.flush()
    rig.reply(rig.poll_one(), LOST, at=0.26)
    assert rig.fate("a") == "unconfirmed"


def test_one_flush_hurries_once() -> None:
    rig = Rig(jitter=lambda: 0.99)
    rig.reply(in_flight(rig, "a").attempt, answer(503))
    rig.flush()
    rig.reply(rig.poll_one(), answer(503))
    assert rig.poll() == []
    assert rig.poll() == []


def test_hurried_retries_keep_the_order_in_which_they_were_due() -> None:
    waits = iter([0.9, 0.1, 0.5])
    rig = Rig(max_batch_events=1, jitter=lambda: next(waits, 0.5))
    rig.push("late", "early", "middle")
    for attempt in rig.poll():
        rig.reply(attempt, answer(503))
    rig.flush()
    for name in ("early", "middle", "late"):
        for attempt in rig.poll():
            rig.reply(attempt, named(*[each.event_id for each in attempt.batch.events]))
        assert name in rig.with_fate("delivered")
    assert [sent.ids[0] for sent in rig.sent[3:]] == ["early", "middle", "late"]


# The endpoint as a whole.


def test_while_probing_only_one_request_is_under_way() -> None:
    rig = Rig(max_batch_events=1, max_in_flight=8)
    rig.push_many(50)
    for attempt in rig.poll():
        rig.reply(attempt, UNSENT)
    most = 0
    for _ in range(20):
        wake_at = rig.engine.wake_at()
        assert wake_at is not None
        rig.now = max(rig.now, wake_at)
        begun = rig.poll()
        most = max(most, len(begun))
        if rig.statistics.requests > 5:
            assert len(begun) == 1
            assert rig.engine.wake_at() is None
        for attempt in begun:
            rig.reply(attempt, UNSENT, at=rig.now + 0.01)
    assert most <= 4


def test_probes_back_off_until_one_succeeds() -> None:
    rig = Rig(max_batch_events=1, backoff_base=1.0, backoff_max=8.0, max_elapsed=1e6)
    rig.push("a", "b", "c")
    first, second, third = rig.poll()
    rig.reply(first, UNSENT, at=1.0)  # requests that were under way together are one failure
    rig.reply(second, UNSENT, at=1.0)
    rig.reply(third, UNSENT, at=1.0)
    gaps = []
    for _ in range(6):
        wake_at = rig.engine.wake_at()
        assert wake_at is not None
        gaps.append(wake_at - rig.now)
        rig.now = wake_at
        begun = rig.poll()
        assert rig.statistics.endpoint == Endpoint.BACKING_OFF
        for attempt in begun:
            rig.reply(attempt, UNSENT, at=wake_at + 0.25)
    assert gaps == [0.5, 3.0, 6.0, 8.0, 8.0, 8.0]
    wake_at = rig.engine.wake_at()
    assert wake_at is not None
    rig.now = wake_at
    rig.reply(rig.poll_one(), answer(200))
    assert rig.statistics.endpoint == Endpoint.HEALTHY
    rig.serve(lambda sent: sent.all_named)
    assert rig.with_fate("delivered") == {"a", "b", "c"}


def test_a_success_ends_the_back_off_of_the_endpoint() -> None:
    rig = Rig(max_batch_events=1, backoff_base=10.0)
    rig.push("a", "b")
    first, second = rig.poll()
    rig.reply(first, UNSENT, at=1.0)
    rig.push("c")
    rig.reply(rig.poll_one(), UNSENT, at=1.1)
    rig.push("d")
    assert rig.poll() == []
    assert rig.engine.wake_at() is None  # one request is under way, and that is the probe
    rig.reply(second, named("b"), at=1.2)
    wake_at = rig.engine.wake_at()
    assert wake_at is not None
    assert wake_at < 2.5  # the outage was short, and so is the time to catch up
    rig.now = wake_at
    assert len(rig.poll()) == 1


def test_concurrency_grows_by_one_a_success_and_falls_at_a_push_back() -> None:
    rig = Rig(max_batch_events=1, max_in_flight=16)
    names = iter(f"e{index}" for index in range(10_000))

    def fill() -> int:
        rig.push(*itertools.islice(names, 40))
        rig.poll()
        return rig.statistics.in_flight

    assert fill() == 4
    running = list(rig.sent)
    for expected in range(5, 17):
        sent = running.pop(0)
        rig.reply(sent.attempt, sent.all_named)
        before = len(rig.sent)
        assert fill() == expected
        running += rig.sent[before:]
    for _ in range(40):
        sent = running.pop(0)
        rig.reply(sent.attempt, sent.all_named)
        before = len(rig.sent)
        assert fill() == 16  # the ceiling
        running += rig.sent[before:]

    sent = running.pop(0)
    rig.reply(sent.attempt, answer(429), at=1.0)
    sent = running.pop(0)
    rig.reply(sent.attempt, answer(429), at=1.1)  # of the same round: it falls once
    assert fill() == 14
    while len(running) > 10:
        sent = running.pop(0)
        rig.reply(sent.attempt, sent.all_named)
    before = len(rig.sent)
    # A few successes of a round that was full at first: hardly more than what the push-back left.
    assert 11 <= fill() <= 12
    running += rig.sent[before:]
    limit = rig.statistics.in_flight
    for _ in range(limit + 1):
        sent = running.pop(0)
        rig.reply(sent.attempt, sent.all_named)
        before = len(rig.sent)
        fill()
        running += rig.sent[before:]
    assert rig.statistics.in_flight == limit + 1  # one more a round from now on


def test_concurrency_that_is_not_used_does_not_grow() -> None:
    rig = Rig(max_batch_events=1)
    for index in range(50):
        rig.push(f"e{index}")
        for attempt in rig.poll():
            rig.reply(attempt, answer(200))
    rig.push_many(40, "later")
    assert len(rig.poll()) == 4


def test_concurrency_never_falls_below_one() -> None:
    rig = Rig(max_batch_events=1, max_retries=100, max_elapsed=1e6)
    rig.push_many(20)
    rig.serve(failing(answer(503), until=60.0, rig=rig))
    assert len(rig.with_fate("delivered")) == 20


@pytest.mark.parametrize("trouble", [UNSENT, answer(503), LOST, answer(429)], ids=repr)
def test_an_outage_does_not_multiply_the_traffic(trouble: Reply) -> None:
    """A batch a second is offered for the 60 seconds of an outage."""
    rig = Rig(max_batch_events=10, max_retries=100)
    pushes = [(second + index / 20, f"{second}-{index}") for second in range(61) for index in range(10)]
    rig.serve(failing(trouble, until=60.0, rig=rig), pushes=pushes)
    during = [sent for sent in rig.sent if sent.at < 60.0]
    assert len(during) <= 20
    rig.assert_settled()
    assert len(rig.with_fate("delivered")) == 610


def test_retries_are_paid_from_a_budget() -> None:
    """An endpoint that is at work, for it takes a part of every batch, is held back by no back-off of its
    own, and without jitter nothing else holds the retries.
    """
    rig = Rig(max_batch_events=1000, max_in_flight=1, jitter=lambda: 0.0, max_retries=10_000)
    rig.push_many(1000)

    def takes_nothing(sent: Sent) -> Response:
        return named(*sent.ids[:1], status=500)

    for _ in range(2):
        rig.serve(takes_nothing, until=10.0, latency=0.001)
    # 11 tokens at first, two a second, and half a one for every answer; the batch was cut without one.
    assert 2 * (11 + 2 * 10) - 2 <= len(rig.sent) <= 2 * (11 + 2 * 10)


def test_a_server_that_fails_now_and_then_has_everything_sent_again_at_once() -> None:
    rig = Rig(max_batch_events=1, max_in_flight=4)
    rig.push_many(300)
    count = itertools.count()
    rig.serve(lambda sent: answer(503) if next(count) % 4 == 0 else sent.all_named, until=30.0)
    assert len(rig.with_fate("delivered")) == 300


# Bounds.


def test_drop_oldest_evicts_only_what_is_queued() -> None:
    rig = Rig(max_queue_events=5, max_batch_events=2, max_in_flight=1, overflow="drop_oldest")
    rig.push("a", "b")
    sent = rig.poll_one()
    rig.push("c", "d", "e", "f", "g", "h")
    assert rig.with_fate("evicted") == {"c", "d", "e"}
    rig.reply(sent, answer(503))
    rig.push("i")
    assert rig.with_fate("evicted") == {"c", "d", "e", "f"}
    rig.serve(healthy)
    assert rig.with_fate("delivered") == {"a", "b", "g", "h", "i"}
    rig.assert_settled()


def test_drop_oldest_refuses_the_newest_when_all_is_under_way() -> None:
    rig = Rig(max_queue_events=2, max_batch_events=2, overflow="drop_oldest")
    rig.push("a", "b")
    rig.poll_one()
    assert rig.push("c") is Admission.QUEUE_FULL
    assert rig.statistics.refused == {"queue_full": 1}
    assert rig.with_fate("evicted") == set()


def test_drop_oldest_evicts_nothing_in_vain() -> None:
    """A closing is never evicted, so that evicting all else may not be enough."""
    rig = Rig(max_queue_bytes=300, overflow="drop_oldest")
    rig.close_session(session("s"), b'{"session_id":"s","outputs":"' + b"y" * 150 + b'"}')
    held = rig.statistics.held_bytes
    rig.push("a")
    assert rig.push("b", padding=300 - held) is Admission.QUEUE_FULL
    assert rig.with_fate("evicted") == set()
    assert rig.push("c", padding=300 - held - len(event("c"))) is Admission.ACCEPTED
    assert rig.with_fate("evicted") == {"a"}


def test_drop_newest_keeps_what_it_has() -> None:
    rig = Rig(max_queue_events=2)
    assert rig.push("a", "b") is Admission.ACCEPTED
    assert rig.push("c") is Admission.QUEUE_FULL
    rig.serve(healthy)
    assert rig.with_fate("delivered") == {"a", "b"}
    assert rig.push("d") is Admission.ACCEPTED


# The end of a run.


def test_a_drain_refuses_new_events_and_sends_what_is_held_at_once() -> None:
    rig = Rig()
    rig.reply(in_flight(rig, "waiting").attempt, answer(503))
    rig.push("queued")
    rig.engine.drain()
    assert rig.engine.phase is Phase.DRAINING
    assert rig.push("late") is Admission.CLOSED
    assert [attempt.batch.events[0].event_id for attempt in rig.poll()] == ["waiting", "queued"]
    rig.engine.drain()
    assert rig.engine.phase is Phase.DRAINING
    rig.serve(healthy)


@pytest.mark.parametrize("is_draining", [True, False])
def test_a_drain_does_not_spread_what_an_outage_piled_up(is_draining: bool) -> None:
    rig = Rig(max_batch_events=1, max_in_flight=1)
    names = rig.push_many(20)
    rig.serve(lambda sent: UNSENT, until=100.0)
    if is_draining:
        rig.engine.drain()
    rig.serve(healthy, until=rig.now + 31.0)
    assert (rig.with_fate("delivered") == {*names}) is is_draining


def test_a_closed_run_is_not_drained_nor_woken_for_the_next() -> None:
    rig = Rig()
    closed = rig.engine
    rig.abandon()
    closed.drain()
    assert closed.phase is Phase.CLOSED
    rig.run_again()
    rig.push("a")
    assert closed.wake_at() is None
    assert rig.engine.wake_at() == 1.0


def test_abandon_tells_what_may_have_arrived_from_what_was_never_sent() -> None:
    rig = Rig(max_batch_events=2, max_in_flight=2, on_ambiguous="retry")
    rig.push("refused", "refused too")
    rig.reply(rig.poll_one(), answer(503))
    rig.push("lost", "lost too")
    rig.reply(rig.poll_one(), LOST)
    rig.now = 100.0
    rig.push("flying", "queued 1", "queued 2", "queued 3")
    rig.poll()
    rig.abandon()
    assert rig.engine.phase is Phase.CLOSED
    assert rig.with_fate("unconfirmed") == {"lost", "lost too"} | {
        name for sent in rig.sent[2:] for name in sent.ids
    }
    assert rig.with_fate("shutdown") == (
        {"refused", "refused too", "flying", "queued 1", "queued 2", "queued 3"}
        - {name for sent in rig.sent[2:] for name in sent.ids}
    )
    assert rig.engine.wake_at() is None
    assert rig.poll() == []
    rig.assert_settled()


@pytest.mark.parametrize("may_have_arrived", [True, False])
def test_abandon_settles_the_pieces_of_a_search_by_what_was_sent_of_them(may_have_arrived: bool) -> None:
    rig = Rig()
    sent = in_flight(rig, "a", "b", "c", "d")
    if may_have_arrived:
        rig.reply(sent.attempt, LOST)
        rig.send_at(0.25)
    rig.reply(rig.sent[-1].attempt, answer(400))
    rig.poll_one()
    rig.abandon()
    assert rig.with_fate("unconfirmed") == ({"a", "b", "c", "d"} if may_have_arrived else {"a", "b"})
    assert rig.with_fate("shutdown") == (set() if may_have_arrived else {"c", "d"})
    rig.assert_settled()


def test_abandon_settles_everything_with_the_reason_given() -> None:
    rig = Rig()
    key = session("s")
    rig.push("a", key=key)
    rig.flush()
    rig.poll_one()
    rig.close_session(key, END)
    rig.push("b")
    rig.engine.abandon(DropReason.INTERNAL)
    assert rig.with_fate("unconfirmed") == {"a"}
    assert rig.with_fate("internal") == {"b", "end of s"}
    rig.assert_settled()


def test_a_new_run_takes_events_again_and_counts_on() -> None:
    rig = Rig()
    in_flight(rig, "a")
    rig.abandon()
    rig.run_again()
    assert rig.engine.phase is Phase.OPEN
    assert rig.push("b") is Admission.ACCEPTED
    assert rig.engine.wake_at() == 1.0
    rig.serve(healthy)
    assert rig.fate("b") == "delivered"
    assert rig.statistics.accepted == 2
    rig.assert_settled()


def lose_replies(rig: Rig, now: float) -> None:
    for attempt in list(rig.engine.in_flight):
        rig.engine.complete(attempt, Failure(cause="its event loop was closed", unsent=False), now)


def test_lost_replies_are_ambiguous_for_all_that_was_in_flight() -> None:
    rig = Rig(max_batch_events=1)
    rig.push("a", "b")
    rig.poll()
    lose_replies(rig, 5.0)
    assert rig.statistics.last_error == "its event loop was closed"
    assert rig.statistics.in_flight == 0
    rig.now = 5.0
    rig.serve(healthy)
    assert [sent.ids[0] for sent in rig.sent] == ["a", "b", "a", "b"]
    assert rig.with_fate("delivered") == {"a", "b"}
    once = Rig(on_ambiguous="drop")
    in_flight(once, "a")
    lose_replies(once, 5.0)
    assert once.fate("a") == "unconfirmed"


def test_what_may_have_arrived_counts_also_when_a_flush_began_it() -> None:
    """Else a program that flushes again and again would leave a copy with the server each time."""
    rig = Rig(max_retries=2)
    rig.push("a")
    rig.flush()
    for number in range(10):
        begun = rig.poll()
        assert len(begun) == (1 if number <= 2 else 0)
        for attempt in begun:
            rig.reply(attempt, LOST)
        rig.flush()
    assert rig.fate("a") == "unconfirmed"


def held_by(poison: Iterable[str], status: int) -> Server:
    """A server that answers requests with these as if something were wrong with all, and takes the others."""
    bad = set(poison)
    return lambda sent: answer(status) if bad.intersection(sent.ids) else sent.all_named


@pytest.mark.parametrize("status", [403, 404, 429, 503])
def test_batches_that_the_server_will_not_have_by_themselves_hold_nobody_up_for_ever(status: int) -> None:
    rig = Rig(max_batch_events=1, max_queue_events=100_000)
    poison = [f"p{number}" for number in range(6)]
    pushes = [(0.0, name) for name in poison]
    pushes += [(second / 2, f"e{second}") for second in range(7200)]
    rig.serve(held_by(poison, status), until=3600.0, pushes=pushes)
    assert rig.with_fate("delivered") >= {f"e{second}" for second in range(7000)}
    assert rig.with_fate("rejected") | rig.with_fate("retries_exhausted") == set(poison)


def test_a_key_that_is_refused_costs_nothing_however_often_it_works_again() -> None:
    rig = Rig(max_batch_events=1)
    rig.push("a")
    rig.flush()
    for minute in range(5):
        rig.now = 100.0 * minute
        for attempt in rig.poll():
            rig.reply(attempt, answer(401))
    assert rig.statistics.held == 1


def test_a_session_update_that_is_refused_holds_up_nothing_else() -> None:
    rig = Rig(max_batch_events=1)
    key = session("s")
    rig.push("a", key=key)
    rig.reply(rig.poll_one(), named("a"))
    rig.close_session(key, b'{"session_id":"s","outputs":{}}')
    rig.flush()
    rig.reply(rig.poll_one(), answer(405))
    assert rig.fate("end of s") == "rejected"
    rig.push("b")
    assert rig.poll()


def test_a_flush_that_waits_for_the_end_of_an_outage_does_not_wait_for_the_catching_up() -> None:
    rig = Rig(max_batch_events=1)
    rig.push_many(1000)
    barrier = rig.intake.raise_barrier()
    rig.serve(failing(UNSENT, until=60.0, rig=rig), until=95.0)
    assert barrier.held == 0


def test_a_failure_of_long_ago_is_not_the_beginning_of_an_outage() -> None:
    rig = Rig(max_batch_events=1, on_ambiguous="drop")
    rig.push("a")
    rig.reply(rig.poll_one(), LOST)
    rig.now = 3600.0
    rig.push_many(200)
    rig.serve(failing(UNSENT, until=3603.0, rig=rig), until=3625.0)
    assert rig.statistics.held == 0


def test_a_success_that_asks_to_wait_is_no_reason_to() -> None:
    rig = Rig(max_batch_events=1)
    rig.push("a")
    rig.reply(rig.poll_one(), Response(status=200, retry_after=3600.0))
    rig.push("b")
    assert rig.poll()


def test_a_key_that_is_refused_in_the_midst_of_a_search_costs_none_of_the_pieces() -> None:
    rig = Rig()
    rig.reply(in_flight(rig, "a", "b", "c", "d").attempt, answer(400))
    for minute in range(5):
        rig.now = 100.0 * minute
        for attempt in rig.poll():
            rig.reply(attempt, answer(401))
    assert rig.statistics.held == 4
    rig.now = 600.0
    rig.serve(refusing(["b"]))
    assert rig.with_fate("delivered") == {"a", "c", "d"}
    assert rig.fate("b") == "rejected"


def test_the_one_event_that_makes_a_server_answer_as_if_a_setting_were_wrong_is_found() -> None:
    rig = Rig(max_batch_events=4)
    pushes = [(float(second), f"e{second}") for second in range(1200)]
    rig.serve(held_by(["e2"], 403), until=1500.0, pushes=pushes)
    assert rig.with_fate("rejected") == {"e2"}
    assert rig.statistics.delivered == 1199
    assert rig.statistics.last_error == "HTTP 403"


# Compressed bodies.


def not_compressed(status: int = 415, retry_after: float | None = None) -> Response:
    """A refusal of a body that was compressed."""
    return Response(status=status, compressed=True, retry_after=retry_after)


def in_plain(rig: Rig, sent: Sent) -> Attempt:
    """Refuse a body that was compressed, and begin the request that comes in its place."""
    rig.reply(sent.attempt, not_compressed())
    again = rig.poll_one()
    assert again.plain is True
    assert (rig.sent[-1].ids, rig.sent[-1].body) == (sent.ids, sent.body)
    return again


@pytest.mark.parametrize("status", [400, 415])
def test_a_body_that_is_not_taken_compressed_is_sent_in_plain_at_once(status: int) -> None:
    rig = Rig()
    sent = in_flight(rig, "a", "b")
    assert sent.attempt.plain is False
    rig.reply(sent.attempt, not_compressed(status), at=0.1)
    again = rig.send_at(0.1)
    assert rig.sent[-1].body == sent.body
    assert (again.plain, again.number, again.first_at, again.maybe_sent) == (True, 1, 0.0, False)
    assert (rig.statistics.requests, rig.statistics.retries) == (2, 0)
    assert rig.statistics.last_error == f"HTTP {status} to a compressed body"
    assert rig.statistics.endpoint == Endpoint.HEALTHY
    rig.reply(again, named("a", "b"))
    assert rig.with_fate("delivered") == {"a", "b"}
    rig.assert_settled()


def test_a_body_that_is_not_taken_compressed_waits_as_long_as_the_server_asks() -> None:
    rig = Rig()
    sent = in_flight(rig, "a")
    rig.reply(sent.attempt, not_compressed(retry_after=2.0))
    assert rig.send_at(2.0).plain is True


@pytest.mark.parametrize("reply", [named("a", "b"), named("a", status=500, errors=1), named("a")])
def test_a_server_that_takes_in_plain_what_it_did_not_compressed_gets_all_in_plain(reply: Response) -> None:
    rig = Rig()
    rig.reply(in_plain(rig, in_flight(rig, "a", "b")), reply)
    assert rig.intake.ledger.is_plain is True
    rig.push("c")
    rig.serve(healthy)
    assert all(sent.attempt.plain is True for sent in rig.sent[2:])
    assert rig.with_fate("delivered") == {"a", "b", "c"}
    rig.assert_settled()


def test_what_waited_compressed_for_a_retry_goes_in_plain_when_the_server_takes_no_other() -> None:
    rig = Rig()
    rig.reply(in_flight(rig, "a").attempt, answer(503))
    rig.intake.ledger.is_plain = True  # as another batch may have found out meanwhile
    rig.serve(healthy)
    assert [sent.attempt.plain for sent in rig.sent] == [False, True]
    rig.assert_settled()


@pytest.mark.parametrize("reply", [answer(503), answer(413), answer(400), answer(401), LOST, UNSENT])
def test_a_server_that_does_not_take_it_in_plain_either_says_nothing_of_compression(reply: Reply) -> None:
    rig = Rig()
    rig.reply(in_plain(rig, in_flight(rig, "a")), reply)
    assert rig.intake.ledger.is_plain is False


def test_a_server_that_takes_compressed_bodies_goes_on_getting_them() -> None:
    rig = Rig()
    for name in "abc":
        sent = in_flight(rig, name)
        assert sent.attempt.plain is False
        rig.reply(sent.attempt, sent.all_named)
    assert rig.intake.ledger.is_plain is False


def test_an_event_that_is_refused_in_plain_as_well_costs_the_next_ones_no_compression() -> None:
    rig = Rig()
    rig.reply(in_plain(rig, in_flight(rig, "poison")), answer(400))
    assert rig.fate("poison") == "rejected"
    assert in_flight(rig, "a").attempt.plain is False


@pytest.mark.parametrize("status", [400, 413])
def test_the_halves_of_what_is_not_taken_in_plain_either_are_compressed(status: int) -> None:
    rig = Rig()
    rig.reply(in_plain(rig, in_flight(rig, "a", "b", "c", "d")), answer(status))
    halves = rig.poll()
    assert rig.sent[2].ids == ("a", "b")
    assert all(half.plain is False for half in halves)


@pytest.mark.parametrize("status", [400, 413])
def test_an_event_without_its_closing_is_compressed(status: int) -> None:
    rig = Rig()
    rig.reply(in_plain(rig, in_session(rig, "a")), answer(status))
    alone = rig.poll_one()
    assert (rig.sent[-1].ids, alone.plain) == (("a",), False)


def test_what_was_mended_is_compressed() -> None:
    rig = Rig()
    rig.push_bytes("a", b'{"event_id":"a","cost":NaN}')
    rig.flush()
    rig.poll_one()
    rig.reply(in_plain(rig, rig.sent[-1]), answer(400))
    mended = rig.poll_one()
    assert (rig.sent[-1].body, mended.plain) == (body_of(b'{"event_id":"a","cost":null}'), False)
    rig.reply(mended, named("a"))
    rig.assert_settled()
