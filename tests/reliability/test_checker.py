"""The checker itself: an honest record has no violation, and every lie in one is found."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from honeyhive_batcher import FlushResult, Statistics
from tests.reliability.checker import (
    Arrival,
    Fated,
    Flushed,
    Limits,
    Offer,
    Record,
    Told,
    arrival,
    violations,
)

LIMITS = Limits(
    max_queue_events=10,
    max_queue_bytes=1000,
    max_batch_events=2,
    max_batch_bytes=1024,
    max_in_flight=2,
    max_retries=1,
    max_elapsed=60.0,
    backoff_max=5.0,
    flush_interval=1.0,
    on_ambiguous="retry",
)
NOTHING = Statistics(
    offered=0,
    accepted=0,
    refused={},
    delivered=0,
    dropped={},
    unconfirmed=0,
    held=0,
    held_bytes=0,
    in_flight=0,
    requests=0,
    retries=0,
    batches={},
    repaired=0,
    callback_errors=0,
    endpoint="healthy",
    last_error=None,
    last_delivery_at=None,
)
END = msgspec.structs.replace(
    NOTHING,
    offered=7,
    accepted=6,
    refused={"closed": 1},
    delivered=3,
    dropped={"rejected": 1, "evicted": 1},
    unconfirmed=1,
    requests=5,
    retries=1,
)


def body(*names: str, session: dict[str, Any] | None = None) -> bytes:
    facts: dict[str, Any] = {"model_events": [{"event_id": name, "mark": name} for name in names]}
    if session is not None:
        facts["session_properties"] = session
    return msgspec.json.encode(facts)


def send(record: Record, at: float, sent: bytes, method: str = "POST", run: int = 1) -> Arrival:
    return record.begin(arrival(method, sent, at=at, run=run))


def answer(record: Record, come: Arrival, at: float, reply: str, *told: Told) -> None:
    """Say the same of every event, or one thing of each; what is confirmed is stored."""
    for each, learnt in zip(come.carried, told * len(come.carried) if len(told) == 1 else told, strict=True):
        each.told = learnt
        each.is_stored = learnt is Told.CONFIRMED
    come.reply = reply
    record.end(come, at)


def offer(name: str, answered: str = "accepted", group: str = "") -> Offer:
    return Offer(event_id=name, answer=answered, group=group, mark=b'"mark":"%b"' % name.encode())


def honest() -> Record:
    """A short life: `a` is taken at the second try, `b` refused, `c` lost on the way, `e` of the session
    `s` taken with its end, `f` evicted, and `g` came too late.
    """
    record = Record(LIMITS)
    record.snapshot(NOTHING, 0.0)
    record.offers += [offer(name) for name in "abcf"]
    record.offers += [offer("e", group="s"), offer("s", group="s")]
    record.fates.append(Fated(at=0.5, event_id="f", fate="evicted"))
    held = msgspec.structs.replace(
        NOTHING, offered=6, accepted=6, dropped={"evicted": 1}, held=5, held_bytes=500
    )
    record.snapshot(held, 0.5)

    busy = send(record, 1.0, body("a", "b"))
    lost = send(record, 1.0, body("c"))
    answer(record, busy, 1.1, "HTTP 503", Told.REFUSED)
    busy.retry_after, busy.costs_a_try = 1.0, True
    answer(record, lost, 1.2, "connection reset", Told.UNKNOWN)
    lost.carried[0].is_stored = True
    record.fates.append(Fated(at=1.2, event_id="c", fate="unconfirmed"))
    again = send(record, 2.1, body("a", "b"))
    answer(record, again, 2.2, "HTTP 500", Told.CONFIRMED, Told.REFUSED)
    record.fates.append(Fated(at=2.2, event_id="a", fate="delivered"))
    alone = send(record, 3.0, body("b"))
    answer(record, alone, 3.1, "HTTP 400", Told.REFUSED)
    record.fates.append(Fated(at=3.1, event_id="b", fate="rejected"))
    ending = send(record, 4.0, body("e", session={"session_id": "s", "outputs": {"mark": "s"}}))
    answer(record, ending, 4.1, "HTTP 200", Told.CONFIRMED)
    record.fates += [Fated(at=4.1, event_id=name, fate="delivered") for name in ("e", "s")]
    result = FlushResult(ok=False, delivered=3, dropped=1, unconfirmed=1, held=0)
    record.flushes.append(Flushed(offers=6, fates=1, held=5, result=result, fates_after=6))
    record.offers.append(offer("g", "closed"))
    record.snapshot(END, 5.0)
    return record


def test_an_honest_record_has_no_violation() -> None:
    assert violations(honest()) == []


Doctor = Callable[[Record], object]
LIES: dict[str, tuple[Doctor, str]] = {}


def lie(complaint: str) -> Callable[[Doctor], Doctor]:
    """Note that what a doctor does to a record has to be found with these words."""

    def note(doctor: Doctor) -> Doctor:
        LIES[doctor.__name__] = (doctor, complaint)
        return doctor

    return note


def fated(record: Record, name: str, fate: str) -> None:
    """Give an event another fate than it had."""
    record.fates = [
        msgspec.structs.replace(each, fate=fate) if each.event_id == name else each for each in record.fates
    ]


def numbers(record: Record, **changes: Any) -> None:
    """Change the last snapshot."""
    last = record.snapshots[-1]
    changed = msgspec.structs.replace(last.numbers, **changes)
    record.snapshots[-1] = msgspec.structs.replace(last, numbers=changed)


def flushed(record: Record, **changes: Any) -> None:
    (only,) = record.flushes
    record.flushes = [msgspec.structs.replace(only, result=msgspec.structs.replace(only.result, **changes))]


# Fates.


@lie("1 events have no fate after the end (c), and 0 callbacks")
def no_fate(record: Record) -> None:
    record.fates.pop(1)
    last = record.snapshots[-1]
    record.snapshots[-1] = msgspec.structs.replace(last, fates=last.fates - 1)


@lie("a has more than one fate")
def two_fates(record: Record) -> None:
    record.fates.append(Fated(at=4.5, event_id="a", fate="delivered"))


@lie("x was sent, or has a fate, and was never offered")
def a_fate_of_nothing(record: Record) -> None:
    record.fates.append(Fated(at=4.5, event_id="x", fate="delivered"))


@lie("g was refused (closed), and yet sent")
def a_fate_of_what_was_refused(record: Record) -> None:
    record.fates.append(Fated(at=4.5, event_id="g", fate="shutdown"))


@lie("a was offered twice")
def one_id_for_two(record: Record) -> None:
    record.offers.append(offer("a"))


@lie("a is delivered, and the server does not have it")
def delivered_to_nobody(record: Record) -> None:
    record.arrivals[2].carried[0].is_stored = False


@lie("a is delivered, and the server never said so")
def delivered_by_guess(record: Record) -> None:
    record.arrivals[2].carried[0].told = Told.UNKNOWN


@lie("a is dropped (shutdown), and the server has it")
def dropped_and_there(record: Record) -> None:
    fated(record, "a", "shutdown")


@lie("c is dropped (shutdown), and it might have arrived")
def dropped_and_maybe_there(record: Record) -> None:
    record.arrivals[1].carried[0].is_stored = False
    fated(record, "c", "shutdown")


@lie("b is unconfirmed, and the server was never unclear about it")
def unconfirmed_without_need(record: Record) -> None:
    fated(record, "b", "unconfirmed")


@lie("a is unconfirmed, and the server had confirmed it")
def unconfirmed_though_confirmed(record: Record) -> None:
    fated(record, "a", "unconfirmed")


@lie("b is dropped because the worker failed")
def the_worker_failed(record: Record) -> None:
    fated(record, "b", "internal")


@lie("b is evicted, and it had been sent")
def evicted_in_flight(record: Record) -> None:
    fated(record, "b", "evicted")


@lie("b is too large, and the server never said so of it alone")
def too_large_for_nobody(record: Record) -> None:
    fated(record, "b", "too_large")


@lie("f is rejected, and the server never refused it")
def rejected_by_nobody(record: Record) -> None:
    fated(record, "f", "rejected")


@lie("f is out of retries, and it was never sent")
def tired_of_nothing(record: Record) -> None:
    fated(record, "f", "retries_exhausted")


@lie("b is out of retries, and had some left")
def tired_too_soon(record: Record) -> None:
    del record.arrivals[3]
    record.arrivals[2].costs_a_try = False
    fated(record, "b", "retries_exhausted")


# Requests.


@lie("a in request 5 at 4.5 s was sent again after the server had confirmed it")
def sent_again(record: Record) -> None:
    answer(record, send(record, 4.5, body("a")), 4.6, "HTTP 200", Told.CONFIRMED)


@lie("c in request 2 at 1.1 s was sent while it was under way")
def sent_twice_at_once(record: Record) -> None:
    twin = arrival("POST", body("c"), at=1.1, run=1)
    twin.began = record.arrivals[1].began
    record.arrivals.insert(2, twin)


@lie("a in request 2 at 2.1 s has another body than before")
def another_body(record: Record) -> None:
    record.arrivals[0].carried[0].body += b" "


@lie("request 2 at 2.1 s has another body than before")
def another_whole(record: Record) -> None:
    record.arrivals[0].body += b" "


@lie("e was sent with another's body")
def a_body_of_another(record: Record) -> None:
    record.arrivals[4].carried[0].body = b'{"event_id":"e","mark":"a"}'


@lie("e of the session '' was sent with 's'")
def another_session(record: Record) -> None:
    record.offers[4] = offer("e")


@lie("request 5 at 4.5 s has other session properties than before")
def other_properties(record: Record) -> None:
    properties = {"session_id": "s", "outputs": {"mark": "s", "more": 1}}
    answer(record, send(record, 4.5, body("e", session=properties)), 4.6, "HTTP 200", Told.CONFIRMED)


@lie("x was sent, or has a fate, and was never offered")
def another_id(record: Record) -> None:
    answer(record, send(record, 4.5, body("x")), 4.6, "HTTP 200", Told.CONFIRMED)


@lie("request 5 at 4.5 s is empty")
def an_empty_request(record: Record) -> None:
    answer(record, send(record, 4.5, body()), 4.6, "HTTP 200")


@lie("request 5 at 4.5 s has 3 events")
def too_many_events(record: Record) -> None:
    answer(record, send(record, 4.5, body("a", "b", "c")), 4.6, "HTTP 200", Told.CONFIRMED)


@lie("request 0 at 1 s has 1025 bytes")
def too_many_bytes(record: Record) -> None:
    record.arrivals[0].body = record.arrivals[0].body.ljust(1025)


@lie("request 5 at 4.7 s is one of 3 under way")
def too_many_at_once(record: Record) -> None:
    record.arrivals[3].ended = record.arrivals[4].ended = None
    send(record, 4.7, body("b"))


@lie("request 2 at 2.1 s came before 3.1 s, which was asked for")
def too_early(record: Record) -> None:
    record.arrivals[0].retry_after = 2.0


@lie("request 6 at 5.5 s is a retry too many")
def too_often(record: Record) -> None:
    record.limits = msgspec.structs.replace(LIMITS, max_retries=0)
    for at in (4.5, 5.5):
        answer(record, send(record, at, body("c")), at + 0.1, "connection reset", Told.UNKNOWN)
        record.arrivals[-1].costs_a_try = True


@lie("b was first sent at 1 s, after younger ones of its group")
def out_of_order(record: Record) -> None:
    record.offers[0], record.offers[1] = record.offers[1], record.offers[0]


@lie("c in request 5 at 4.5 s was sent again although it may have arrived")
def sent_again_though_told_not_to(record: Record) -> None:
    record.limits = msgspec.structs.replace(LIMITS, on_ambiguous="drop")
    answer(record, send(record, 4.5, body("c")), 4.6, "connection reset", Told.UNKNOWN)


@lie("the server has 2 copies of c")
def two_copies_though_told_not_to(record: Record) -> None:
    sent_again_though_told_not_to(record)
    record.arrivals[5].carried[0].is_stored = True


@lie("a was to be sent at 0.9 s, with 0 requests under way")
def too_late(record: Record) -> None:
    record.offers[0] = msgspec.structs.replace(offer("a"), at=-0.1, run=1)


@lie("a is rejected, and the server left it out only once")
def rejected_at_once(record: Record) -> None:
    left_out = record.arrivals[0]
    left_out.reply, left_out.retry_after = 'HTTP 500 {"event_ids":["b"],"errors":["?"]}', None
    del record.arrivals[2]
    fated(record, "a", "rejected")


# Numbers.


@lie("offered is not accepted + refused")
def offered_is_wrong(record: Record) -> None:
    numbers(record, offered=8)


@lie("accepted is not delivered + dropped + unconfirmed + held")
def accepted_is_wrong(record: Record) -> None:
    numbers(record, delivered=4)


@lie("7 events are accepted, and the producers know of 6")
def accepted_from_nowhere(record: Record) -> None:
    numbers(record, offered=8, accepted=7, delivered=4)


@lie("2 events are closed, and the producers know of 1")
def refused_from_nowhere(record: Record) -> None:
    numbers(record, offered=8, refused={"closed": 2})


@lie("4 events are delivered, and the callbacks told 3")
def delivered_in_secret(record: Record) -> None:
    numbers(record, delivered=4, unconfirmed=0)


@lie("0 events are evicted, and the callbacks told 1")
def told_and_not_counted(record: Record) -> None:
    numbers(record, dropped={"rejected": 1, "shutdown": 1})


@lie("requests fell from 9 to 5")
def backwards(record: Record) -> None:
    middle = record.snapshots[1]
    changed = msgspec.structs.replace(middle.numbers, requests=9)
    record.snapshots[1] = msgspec.structs.replace(middle, numbers=changed)


@lie("11 events are held")
def too_many_held(record: Record) -> None:
    numbers(record, held=11)


@lie("1001 bytes are held")
def too_much_held(record: Record) -> None:
    numbers(record, held_bytes=1001)


@lie("0 events are held, of 7 bytes")
def bytes_of_nothing(record: Record) -> None:
    numbers(record, held_bytes=7)


@lie("3 requests are under way")
def too_many_under_way(record: Record) -> None:
    numbers(record, in_flight=3)


@lie("after the end 1 events are held")
def held_for_ever(record: Record) -> None:
    numbers(record, held=1, held_bytes=10, delivered=2)


@lie("there is no snapshot from after the end")
def nothing_seen_of_the_end(record: Record) -> None:
    record.snapshots.pop()


@lie("7 requests are counted, and 5 came")
def requests_from_nowhere(record: Record) -> None:
    numbers(record, requests=7)


@lie("(none), and 1 callbacks could not be called")
def callbacks_that_were_called(record: Record) -> None:
    numbers(record, callback_errors=1)


# Flushes.


@lie("speaks of 6 events, and 5 were held")
def a_flush_of_more_than_was_held(record: Record) -> None:
    flushed(record, held=1)


@lie("is not right about being ok")
def a_flush_that_is_not_ok(record: Record) -> None:
    flushed(record, ok=True)


@lie("is not what the callbacks told")
def a_flush_that_is_too_good(record: Record) -> None:
    flushed(record, delivered=4, unconfirmed=0)


@lie("is not what the callbacks told")
def a_flush_that_hides_a_drop(record: Record) -> None:
    flushed(record, dropped=0, held=1)


@pytest.mark.parametrize("name", LIES)
def test_every_lie_in_a_record_is_found(name: str) -> None:
    doctor, complaint = LIES[name]
    record = honest()
    doctor(record)
    assert any(complaint in sentence for sentence in violations(record)), violations(record)
