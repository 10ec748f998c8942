"""Partial success: a server that takes some events of a batch, and says so well, badly or wrongly.

HoneyHive answers a partial success with 500 and the ids of what it created. Every subset of ten events
is played with an honest server, and every combination of an answer's fields with a dishonest one. Two
things are looked at above all: what a server said it has is never sent again, and every event meets a
fate within so many requests. All of it runs over the engine, without a loop.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Literal, TypeAlias

from msgspec import Struct

from honeyhive_batcher.core.fragment import SESSIONLESS
from honeyhive_batcher.core.model import Response
from tests.core.rig import Rig, Sent, named, session
from tests.reliability.rows import Row, Size

Policy: TypeAlias = Literal["retry", "drop"]

TEN = tuple("abcdefghij")
SUBSETS = [subset for length in range(11) for subset in itertools.combinations(TEN, length)]
STATUSES = (500, 200, 207)
POLICIES: tuple[Policy, ...] = ("retry", "drop")
LOST = {"rejected", "retries_exhausted", "unconfirmed"}
CLOSING = "end of s"


def rows(size: Size) -> Iterator[Row]:
    """Yield what came of every subset, and of every answer that makes no sense."""
    is_full = size is Size.FULL
    yield from subsets(every=1 if is_full else 64)
    yield from senseless_answers(is_full=is_full)
    yield from bodies_of_another_kind()


# Every subset of ten events, and a server that is honest about it.


class Honest:
    """Creates what is not among the rejected, and names it; `errors` tells for how many of the others
    there is a message: for all, for all but one, or for none.
    """

    def __init__(self, rejected: Collection[str], errors: str, status: int, write: Callable[[str], str]):
        self._rejected = frozenset(rejected)
        self._errors = errors
        self._status = status
        self._write = write
        self.created: Counter[str] = Counter()

    def __call__(self, sent: Sent) -> Response:
        if sent.method == "PUT":
            return Response(status=200)
        good = [name for name in sent.ids if name not in self._rejected]
        self.created.update(good)
        bad = len(sent.ids) - len(good)
        errors = {"all": bad, "fewer": max(0, bad - 1), "none": 0}[self._errors]
        written = [self._write(name) for name in good]
        return named(*written, status=self._status if bad else 200, errors=errors)


class Case(Struct, frozen=True, kw_only=True):
    """One batch of ten events and what became of it."""

    rejected: int
    requests: int
    sent_again: int
    """Events that the server had created and named, and that were sent once more."""
    wrong: str
    """What is not as it should be; empty if all is."""


def play(
    rejected: Collection[str], errors: str, status: int, policy: Policy, *, in_session: bool = False
) -> Case:
    """Send ten events to a server that rejects some of them whenever they come."""
    rig = Rig(on_ambiguous=policy)
    key = session("s") if in_session else SESSIONLESS
    rig.push(*TEN, key=key)
    if in_session:
        rig.close_session(key, key.properties)
    server = Honest(rejected, errors, status, str.upper if len(rejected) % 2 else str)
    rig.serve(server)
    rig.assert_settled()
    created = set(TEN) - set(rejected)
    delivered = rig.with_fate("delivered") - {CLOSING}
    lost = set().union(*(rig.with_fate(fate) for fate in LOST)) - {CLOSING}
    wrong = ""
    if delivered != created or lost != set(rejected):
        wrong = f"delivered {sorted(delivered)}, lost {sorted(lost)}"
    elif errors == "all" and rig.with_fate("rejected") - {CLOSING} != set(rejected):
        wrong = "accounted for, and not dropped as rejected"
    elif in_session and rig.fate(CLOSING) != "delivered" and created:
        wrong = f"the closing is {rig.fate(CLOSING)}"
    requests = sum(sent.method == "POST" for sent in rig.sent)
    sent_again = sum(count - 1 for count in server.created.values())
    return Case(rejected=len(rejected), requests=requests, sent_again=sent_again, wrong=wrong)


def subsets(every: int) -> Iterator[Row]:
    """All 1,024 subsets with a 500 as HoneyHive gives it; every so many with all other combinations."""
    cases = [play(subset, "all", 500, "retry") for subset in SUBSETS]
    cases += [
        play(subset, errors, status, policy, in_session=in_session)
        for status, errors, policy, in_session in itertools.product(
            STATUSES, ("all", "fewer", "none"), POLICIES, (False, True)
        )
        for subset in {*SUBSETS[::every], SUBSETS[0], SUBSETS[-1]}
    ]
    yield Row(
        bar=10,
        what=f"every subset of ten events rejected, 500/200/207, {len(cases):,} cases: created events resent",
        figure=f"{sum(case.sent_again for case in cases)}",
        bound="0",
        holds=all(case.sent_again == 0 for case in cases),
    )
    wrong = [case.wrong for case in cases if case.wrong]
    yield Row(
        bar=10,
        what="... cases in which not all created are delivered, or a rejected one is not named as lost",
        figure=f"{len(wrong)} {wrong[:1] or ''}".rstrip(),
        bound="0",
        holds=not wrong,
    )
    over = [case for case in cases if case.requests > 1 + 5 * case.rejected]
    yield Row(
        bar=10,
        what="... most requests of a case; cases with more than 1 + rejected x 5",
        figure=f"{max(case.requests for case in cases)}; {len(over)}",
        bound="<= 6; 0",
        holds=not over and max(case.requests for case in cases) <= 6,
    )


# Answers that make no sense: every combination of their fields, as the first answer and as every one.


ABSENT = object()

IDS: dict[str, Callable[[tuple[str, ...]], object]] = {
    "absent": lambda _: ABSENT,
    "null": lambda _: None,
    "text": lambda ids: ids[0],
    "number": lambda _: 5,
    "object": lambda ids: dict.fromkeys(ids, 1),
    "none": lambda _: [],
    "one": lambda ids: [ids[0]],
    "two": lambda ids: list(ids[1:3]),
    "one, twice": lambda ids: [ids[0], ids[0]],
    "all": list,
    "all, in capitals and in reverse": lambda ids: [name.upper() for name in reversed(ids)],
    "all, each twice": lambda ids: [*ids, *ids],
    "all and a foreign one": lambda ids: [*ids, "foreign"],
    "one foreign": lambda _: ["foreign"],
    "as many foreign": lambda ids: [f"foreign-{name}" for name in ids],
    "more foreign": lambda ids: [f"foreign-{name}" for name in (*ids, "more")],
    "as many times the same foreign": lambda ids: ["foreign" for _ in ids],
    "as many empty": lambda ids: ["" for _ in ids],
    "one and a foreign one": lambda ids: [ids[0], "foreign"],
    "one and foreign ones for the rest": lambda ids: [ids[0], *(f"foreign-{name}" for name in ids[1:])],
    "numbers": lambda ids: list(range(len(ids))),
    "one, a number and null": lambda ids: [ids[0], 5, None],
    "nulls": lambda ids: [None for _ in ids],
    "lists": lambda ids: [[name] for name in ids],
    "objects": lambda ids: [{"event_id": name} for name in ids],
}

ERRORS: dict[str, Callable[[int], object]] = {
    "absent": lambda _: ABSENT,
    "none": lambda _: [],
    "one": lambda _: ["Could not create event due to missing model"],
    "for each": lambda events: ["Could not create event"] * events,
    "more than events": lambda events: [{"message": "Could not create event"}, None, 5] * events,
    "text": lambda _: "Could not create event",
    "object": lambda _: {"0": "Could not create event"},
}

SUCCESS: tuple[object, ...] = (ABSENT, True, False, None, "false", 0)

FOUR = tuple("abcd")


class Answer(Struct, frozen=True, kw_only=True):
    """An answer by its fields, whatever batch it is for."""

    status: int
    event_ids: str
    errors: str
    success: object

    def to(self, ids: tuple[str, ...]) -> Response:
        fields = {
            "event_ids": IDS[self.event_ids](ids),
            "errors": ERRORS[self.errors](len(ids)),
            "success": self.success,
        }
        shown = {name: value for name, value in fields.items() if value is not ABSENT}
        return Response(status=self.status, body=json.dumps(shown).encode())


class Meaning(Struct, frozen=True, kw_only=True):
    """What an answer to `FOUR` leaves to do: each event is in exactly one of these."""

    delivered: frozenset[str] = frozenset()
    again: frozenset[str] = frozenset()
    unconfirmed: frozenset[str] = frozenset()
    by_policy: bool = False
    """Whether the server may have all of it or nothing, so that `on_ambiguous` decides."""


ALL = frozenset(FOUR)


def meaning(answer: Answer, policy: Policy) -> Meaning:
    """Return what an answer to `FOUR` means, by the rules in words.

    Some of ours named: they are delivered, the rest go again alone. Foreign ids: whatever is not named
    was created or not, nobody knows; but as many as are missing and no word of a failure: delivered.
    No ids and an error for each: all go again. A 2xx with nothing of all this: delivered. Else policy.
    """
    fields = json.loads(answer.to(FOUR).body)
    event_ids, errors = fields.get("event_ids"), fields.get("errors")
    has_failed = fields.get("success") is False
    is_good = answer.status < 300
    by_policy = Meaning(
        again=ALL if policy == "retry" else frozenset(),
        unconfirmed=ALL if policy == "drop" else frozenset(),
        by_policy=True,
    )
    failures = len(errors) if isinstance(errors, list) else 0
    if not isinstance(event_ids, list):
        if not is_good or (has_failed and failures < len(FOUR)):
            return by_policy
        if failures >= len(FOUR):
            return Meaning(again=ALL)
        return Meaning(unconfirmed=ALL) if failures else Meaning(delivered=ALL)
    names = {str(name).lower() for name in event_ids if isinstance(name, str | int) and name != ""}
    ours, foreign = ALL & names, names - ALL
    rest = ALL - ours
    if not rest:
        return Meaning(delivered=ALL)
    if foreign and has_failed and not ours:
        return by_policy
    if foreign:
        if is_good and not failures and not has_failed and len(foreign) >= len(rest):
            return Meaning(delivered=ALL)
        return Meaning(delivered=ours, unconfirmed=rest)
    if ours or failures >= len(FOUR):
        return Meaning(delivered=ours, again=rest)
    return by_policy


def every_answer() -> Iterator[Answer]:
    for status, event_ids, errors, success in itertools.product(STATUSES, IDS, ERRORS, SUCCESS):
        yield Answer(status=status, event_ids=event_ids, errors=errors, success=success)


def healthy(sent: Sent) -> Response:
    return sent.all_named if sent.method == "POST" else Response(status=200)


def pushed(policy: Policy, *, in_session: bool) -> Rig:
    rig = Rig(on_ambiguous=policy)
    key = session("s") if in_session else SESSIONLESS
    rig.push(*FOUR, key=key)
    if in_session:
        rig.close_session(key, key.properties)
    rig.flush()
    return rig


def after_one(answer: Answer, policy: Policy, *, in_session: bool) -> str:
    """Give this answer once, and good ones from then on; return what went wrong."""
    rig = pushed(policy, in_session=in_session)
    rig.reply(rig.poll_one(), answer.to(FOUR))
    expected = meaning(answer, policy)
    unconfirmed = frozenset(rig.with_fate("unconfirmed") - {CLOSING})
    delivered = frozenset(rig.with_fate("delivered") - {CLOSING})
    rig.serve(healthy)
    rig.assert_settled()
    again = frozenset(name for sent in rig.sent[1:] for name in sent.ids if sent.method == "POST")
    found = Meaning(delivered=delivered, again=again, unconfirmed=unconfirmed, by_policy=expected.by_policy)
    if found != expected:
        return f"{answer} {policy}: {found} instead of {expected}"
    if rig.with_fate("delivered") - {CLOSING} != expected.delivered | expected.again:
        return f"{answer} {policy}: what was sent again is {rig.fates}"
    # A session is there when the server created anything in it; and what may be there goes by policy.
    closed = "unconfirmed" if expected.by_policy and policy == "drop" else "delivered"
    if in_session and rig.fate(CLOSING) != closed:
        return f"{answer} {policy}: the closing is {rig.fate(CLOSING)}"
    return ""


def always(answer: Answer, policy: Policy, *, in_session: bool) -> tuple[int, str]:
    """Give nothing but this answer; return the requests and what went wrong."""
    rig = pushed(policy, in_session=in_session)
    has: set[str] = set()
    wrong = ""

    def server(sent: Sent) -> Response:
        nonlocal wrong
        if sent.method == "PUT":
            return Response(status=200)
        if has & set(sent.ids):
            wrong = f"{answer} {policy}: {sorted(has & set(sent.ids))} sent again"
        reply = answer.to(sent.ids)
        fields = json.loads(reply.body)
        event_ids = fields.get("event_ids")
        names = {str(name).lower() for name in event_ids} if isinstance(event_ids, list) else set()
        # Who names all of it and calls it a failure contradicts itself: there policy decides.
        if set(sent.ids) - names or fields.get("success") is not False:
            has.update(names & set(sent.ids))
        return reply

    rig.serve(server, max_requests=50)
    rig.assert_settled()
    return sum(sent.method == "POST" for sent in rig.sent), wrong


def senseless_answers(*, is_full: bool) -> Iterator[Row]:
    """All answers with each policy, in a session and without. In the quick size the two statuses and the
    two kinds of `success` that differ, with policies and sessions in turn.
    """
    ways = list(itertools.product(POLICIES, (False, True)))
    if is_full:
        cases = [(answer, *way) for answer in every_answer() for way in ways]
    else:
        answers = [each for each in every_answer() if each.status != 207 and isinstance(each.success, bool)]
        cases = [(answer, *way) for answer, way in zip(answers, itertools.cycle([*ways, ways[0]]))]
    wrong = [
        text
        for answer, policy, in_session in cases
        if (text := after_one(answer, policy, in_session=in_session))
    ]
    yield Row(
        bar=10,
        what=f"answers of any fields once, then good ones, {len(cases):,} cases: read otherwise than agreed",
        figure=f"{len(wrong)} {wrong[:1] or ''}".rstrip(),
        bound="0",
        holds=not wrong,
    )
    results = [
        always(answer, policy, in_session=in_session)
        for answer, policy, in_session in cases[:: 1 if is_full else 3]
    ]
    wrong = [text for _, text in results if text]
    requests = max(requests for requests, _ in results)
    yield Row(
        bar=10,
        what="... nothing but such answers: cases in which a named event is sent again; most requests",
        figure=f"{len(wrong)}; {requests} {wrong[:1] or ''}".rstrip(),
        bound=f"0; <= {1 + 5 * len(FOUR)}",
        holds=not wrong and requests <= 1 + 5 * len(FOUR),
    )


BODIES = (
    b"",
    b" ",
    b"<html><body>502 Bad Gateway</body></html>",
    b"OK",
    b"null",
    b"true",
    b"[]",
    b'"a"',
    b"5",
    b'["a","b","c","d"]',
    b'{"event_ids":["a","b"',
    b'{"event_ids":["a","b","c","d"],"success":true',
    b'{"event_ids":["a"],"success":true}{"event_ids":["b"]}',
    b'\xef\xbb\xbf{"event_ids":["a"]}',
    b'\xff\xfe{"event_ids":["a"]}',
    b'{"event_ids":["\xff"]}',
    b'{"event_ids":[NaN]}',
    b"[" * 100_000,
    b'{"event_ids":' * 50_000,
    b"\x00" * 1000,
    b'{"success":' + b"9" * 100_000 + b"}",
)


def bodies_of_another_kind() -> Iterator[Row]:
    """What is no JSON, or no object, says nothing: the status alone decides."""
    wrong: list[str] = []
    cases = list(itertools.product(BODIES, STATUSES, POLICIES, (False, True)))
    for body, status, policy, in_session in cases:
        rig = pushed(policy, in_session=in_session)
        rig.reply(rig.poll_one(), Response(status=status, body=body))
        rig.serve(healthy)
        rig.assert_settled()
        is_sent_again = len([sent for sent in rig.sent if sent.method == "POST"]) > 1
        is_ambiguous = status == 500
        fate = "unconfirmed" if is_ambiguous and policy == "drop" else "delivered"
        if not rig.with_fate(fate) >= set(FOUR) or is_sent_again != (is_ambiguous and policy == "retry"):
            wrong.append(f"{body[:40]!r} {status} {policy}: {rig.fates}")
    yield Row(
        bar=10,
        what=f"no JSON, HTML, empty, truncated, {len(cases)} cases: not read as no body at all",
        figure=f"{len(wrong)} {wrong[:1] or ''}".rstrip(),
        bound="0",
        holds=not wrong,
    )
