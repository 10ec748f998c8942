"""The ledger checker: what was offered, what the server has, and what the batcher says, event by event.

Whoever runs a batcher against a server of its own keeps a `Record`: every offer with its answer, every
request with what the server did and said, every fate that a callback told, snapshots and flush results.
`violations` compares them. It knows nothing of how the package decides: a request's meaning comes from the
server that answered it.

Two things are asked of a program that is recorded: no two events share an id, and `outputs` is set at the
end of a session only. (That is how a session's end is seen in the properties that it rides with.)
"""

import enum
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from honeyhive_batcher import FlushResult, Statistics

ACCEPTED = "accepted"
DELIVERED = "delivered"
UNCONFIRMED = "unconfirmed"
EVICTED = "evicted"
REJECTED = "rejected"
TOO_LARGE = "too_large"
RETRIES_EXHAUSTED = "retries_exhausted"
INTERNAL = "internal"


_SLOTS = 4
"""Requests that may be under way at once, before anything is known of a server."""
_MOMENT = 1e-6
_LOOK_BACK = 200
"""Requests before the last that may still be under way."""


class Limits(Struct, frozen=True, kw_only=True):
    """The settings of the batcher that a server or a snapshot can see."""

    max_queue_events: int
    max_queue_bytes: int
    max_batch_events: int
    max_batch_bytes: int
    max_in_flight: int
    max_retries: int
    max_elapsed: float
    backoff_max: float
    flush_interval: float
    on_ambiguous: str


class Told(enum.Enum):
    """What the sender could learn about one event from one request."""

    CONFIRMED = "confirmed"
    """The server has it, by its name or because all of the request was taken."""
    REFUSED = "refused"
    """The server surely has not taken it."""
    UNSENT = "unsent"
    """The server was not reached."""
    UNKNOWN = "unknown"
    """Anything is possible. Also while there is no answer yet."""


class Offer(Struct, frozen=True, kw_only=True):
    """An event that was pushed or put, or the end of a session, and the answer."""

    event_id: str
    answer: str
    """`accepted`, or why not."""
    group: str = ""
    """Id of its session, if it has one."""
    mark: bytes = b""
    """What its body holds, and no other's."""
    at: float = 0.0
    run: int = 0
    """In which it was accepted; 0 before the first."""


class Carried(Struct, kw_only=True):
    """One event in one request."""

    event_id: str
    body: bytes
    told: Told = Told.UNKNOWN
    is_stored: bool = False


class Arrival(Struct, kw_only=True):
    """One request: what it held, what the server did with it, and what it said."""

    at: float
    run: int
    """Of the batcher: how many times it had been started."""
    method: str
    body: bytes
    group: str
    properties: bytes
    carried: list[Carried]
    together: int = 1
    """How many requests were under way with it, itself among them."""
    reply: str = "none"
    """In words, for people."""
    began: int = 0
    """Its beginning among all beginnings and ends."""
    ended: int | None = None
    """Its end among them; None while it is under way."""
    ended_at: float | None = None
    retry_after: float | None = None
    costs_a_try: bool = False
    """Whether the answer counts against `max_retries`."""
    is_held: bool = False
    """Whether the answer holds the endpoint: a setting is wrong."""
    is_hurried: bool = False
    """Whether a flush or a close came before it in its run: those have things sent earlier."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The events in it, and the session that ends with it."""
        return tuple(each.event_id for each in self.carried)

    @property
    def events(self) -> int:
        """How many of them are events."""
        return sum(each.event_id != self.group for each in self.carried)


class Fated(Struct, frozen=True, kw_only=True):
    """What a callback told about one event."""

    at: float
    event_id: str
    fate: str
    """`delivered`, `unconfirmed`, or why it was dropped."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """Statistics, and how many offers and fates there had been."""

    at: float
    numbers: Statistics
    offers: int
    fates: int


class Flushed(Struct, frozen=True, kw_only=True):
    """A flush that returned, and how many fates there had been before and after."""

    offers: int
    fates: int
    held: int
    """Events held when it was called, by `Statistics`."""
    result: FlushResult
    fates_after: int


@final
class Record:
    """All that happened to one batcher, in order."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.offers: list[Offer] = []
        self.arrivals: list[Arrival] = []
        self.fates: list[Fated] = []
        self.snapshots: list[Snapshot] = []
        self.flushes: list[Flushed] = []
        self._turns = itertools.count()
        self.callbacks_raised = 0
        """How often a callback of the program's own raised; it had told its fates before."""

    def begin(self, request: Arrival) -> Arrival:
        """Keep a request that has just come."""
        request.together = 1 + sum(other.ended is None for other in self.arrivals[-_LOOK_BACK:])
        request.began = next(self._turns)
        self.arrivals.append(request)
        return request

    def end(self, request: Arrival, at: float) -> None:
        """Note that the sender has the answer, or will never have one."""
        request.ended = next(self._turns)
        request.ended_at = at

    def snapshot(self, numbers: Statistics, at: float) -> Statistics:
        """Keep a snapshot taken at this very moment."""
        self.snapshots.append(
            Snapshot(at=at, numbers=numbers, offers=len(self.offers), fates=len(self.fates))
        )
        return numbers


class _Properties(Struct):
    session_id: str
    outputs: Raw | UnsetType = UNSET


class _Body(Struct):
    model_events: list[Raw]
    session_properties: Raw | UnsetType = UNSET


class _Event(Struct):
    event_id: str


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_properties = msgspec.json.Decoder(_Properties).decode


def arrival(method: str, body: bytes, *, at: float, run: int) -> Arrival:
    """Read a request."""
    group, properties = "", b""
    if method == "PUT":
        carried = [Carried(event_id=_decode_event(body).event_id, body=body)]
        group = carried[0].event_id
    else:
        facts = _decode_body(body)
        carried = [
            Carried(event_id=_decode_event(raw).event_id, body=bytes(raw)) for raw in facts.model_events
        ]
        if facts.session_properties is not UNSET:
            properties = bytes(facts.session_properties)
            session = _decode_properties(properties)
            group = session.session_id
            if session.outputs is not UNSET:
                carried.append(Carried(event_id=group, body=properties))
    return Arrival(
        at=at, run=run, method=method, body=body, group=group, properties=properties, carried=carried
    )


def violations(record: Record) -> list[str]:
    """Return a sentence for each thing that must not be, of a batcher that is closed for good."""
    return [*_requests(record), *_events(record), *_numbers(record), *_flushes(record)]


# One request after another.


def _requests(record: Record) -> Iterator[str]:
    limits = record.limits
    carrying: dict[str, list[tuple[Arrival, Told]]] = defaultdict(list)
    bodies: dict[tuple[str, str], bytes] = {}
    wholes: dict[tuple[str, ...], bytes] = {}
    properties: dict[tuple[str, bool], bytes] = {}
    tries: Counter[tuple[int, tuple[str, ...]]] = Counter()
    for number, request in enumerate(record.arrivals):
        name = f"request {number} at {request.at:g} s"
        if not request.carried:
            yield f"{name} is empty"
        if request.events > limits.max_batch_events:
            yield f"{name} has {request.events} events"
        if len(request.body) > limits.max_batch_bytes:
            yield f"{name} has {len(request.body)} bytes"
        if request.together > limits.max_in_flight:
            yield f"{name} is one of {request.together} under way"
        for each in request.carried:
            event = f"{each.event_id} in {name}"
            before = carrying[each.event_id]
            if any(other.ended is None or other.ended > request.began for other, _ in before):
                yield f"{event} was sent while it was under way"
            elif any(told is Told.CONFIRMED for _, told in before):
                yield f"{event} was sent again after the server had confirmed it"
            elif any(told is Told.UNKNOWN for _, told in before) and limits.on_ambiguous == "drop":
                yield f"{event} was sent again although it may have arrived"
            before.append((request, each.told))
            form = (each.event_id, request.method if each.event_id == request.group else "")
            if bodies.setdefault(form, each.body) != each.body:
                yield f"{event} has another body than before"
        if wholes.setdefault(request.ids, request.body) != request.body:
            yield f"{name} has another body than before"
        shared = (request.group, request.group in request.ids)
        if properties.setdefault(shared, request.properties) != request.properties and request.properties:
            yield f"{name} has other session properties than before"
        # A push-back counts only while the endpoint is not down. What may have arrived counts always: that
        # bounds the copies.
        counts = request.costs_a_try and any(each.told is Told.UNKNOWN for each in request.carried)
        tries[request.run, request.ids] += counts and not request.is_hurried
        if tries[request.run, request.ids] > limits.max_retries + 1:
            yield f"{name} is a retry too many"
    yield from _floors(record.arrivals)
    yield from _order(record)
    yield from _lateness(record)


def _floors(arrivals: list[Arrival]) -> Iterator[str]:
    """What came before the server wanted to hear anything."""
    for asking in arrivals:
        if asking.retry_after is None or asking.ended_at is None:
            continue
        floor = asking.ended_at + asking.retry_after
        for number, request in enumerate(arrivals):
            # One that is on its way at the very instant of the answer could not know.
            if request.run == asking.run and asking.ended_at < request.at < floor - _MOMENT:
                yield f"request {number} at {request.at:g} s came before {floor:g} s, which was asked for"


def _order(record: Record) -> Iterator[str]:
    """What was sent for the first time before something older of its group was."""
    place = {offer.event_id: number for number, offer in enumerate(record.offers) if offer.answer == ACCEPTED}
    latest: dict[str, int] = defaultdict(lambda: -1)
    seen: set[str] = set()
    for request in record.arrivals:
        for name in request.ids:
            if name in seen or name not in place:
                continue
            seen.add(name)
            if place[name] < latest[request.group]:
                yield f"{name} was first sent at {request.at:g} s, after younger ones of its group"
            latest[request.group] = max(latest[request.group], place[name])


def _lateness(record: Record) -> Iterator[str]:
    """What waited for longer than the interval, with a free slot and a run without any trouble so far."""
    trouble: dict[int, float] = defaultdict(lambda: float("inf"))
    gone: dict[str, float] = {}
    for come in record.arrivals:
        for each in come.carried:
            gone.setdefault(each.event_id, come.at)
        is_well = come.reply.startswith("HTTP 2") or all(each.told is Told.REFUSED for each in come.carried)
        if come.ended_at is not None and (come.costs_a_try or come.is_held or not is_well):
            trouble[come.run] = min(trouble[come.run], come.ended_at)
    for fated in record.fates:
        # When something was evicted nobody knows: it is told later.
        at = float("-inf") if fated.fate == EVICTED else fated.at
        gone[fated.event_id] = min(gone.get(fated.event_id, at), at)
    for offer in record.offers:
        due = offer.at + record.limits.flush_interval
        if offer.answer != ACCEPTED or not offer.run or offer.event_id == offer.group:
            continue
        if min(gone.get(offer.event_id, due), trouble[offer.run]) <= due + _MOMENT:
            continue
        under_way = sum(
            come.at <= due + _MOMENT and (come.ended_at is None or come.ended_at >= due - _MOMENT)
            for come in record.arrivals
            if come.run == offer.run
        )
        if under_way < min(_SLOTS, record.limits.max_in_flight):
            yield f"{offer.event_id} was to be sent at {due:g} s, with {under_way} requests under way"


# One event after another.


def _events(record: Record) -> Iterator[str]:
    offers: dict[str, Offer] = {}
    for offer in record.offers:
        if offer.event_id in offers:
            yield f"{offer.event_id} was offered twice: this record cannot be checked"
        offers[offer.event_id] = offer
    sent: dict[str, list[tuple[Arrival, Carried]]] = defaultdict(list)
    for request in record.arrivals:
        for each in request.carried:
            sent[each.event_id].append((request, each))
    fates: dict[str, list[str]] = defaultdict(list)
    for fated in record.fates:
        fates[fated.event_id].append(fated.fate)
    for name in sent.keys() | fates.keys():
        if name not in offers:
            yield f"{name} was sent, or has a fate, and was never offered"
    for name, offer in offers.items():
        if offer.answer != ACCEPTED:
            if sent[name] or fates[name]:
                yield f"{name} was refused ({offer.answer}), and yet sent, or has a fate"
            continue
        if len(fates[name]) > 1:
            yield f"{name} has more than one fate: {fates[name]}"
        for fate in fates[name]:
            yield from _fate(name, fate, sent[name], record)
        for request, each in sent[name]:
            if request.group != offer.group:
                yield f"{name} of the session {offer.group!r} was sent with {request.group!r}"
            if offer.mark not in each.body:
                yield f"{name} was sent with another's body"
        copies = sum(each.is_stored for _, each in sent[name])
        if copies > 1 and record.limits.on_ambiguous == "drop":
            yield f"the server has {copies} copies of {name}, and nothing was to be sent twice"


def _fate(name: str, fate: str, sent: list[tuple[Arrival, Carried]], record: Record) -> Iterator[str]:
    """What is wrong with this fate of an event, for what the server did and said."""
    is_stored = any(each.is_stored for _, each in sent)
    told = {each.told for _, each in sent}
    match fate:
        case "delivered":
            if not is_stored:
                yield f"{name} is delivered, and the server does not have it"
            if Told.CONFIRMED not in told:
                yield f"{name} is delivered, and the server never said so"
        case "unconfirmed":
            if Told.UNKNOWN not in told:
                yield f"{name} is unconfirmed, and the server was never unclear about it"
            if Told.CONFIRMED in told:
                yield f"{name} is unconfirmed, and the server had confirmed it"
        case _:
            if is_stored:
                yield f"{name} is dropped ({fate}), and the server has it"
            elif Told.UNKNOWN in told:
                yield f"{name} is dropped ({fate}), and it might have arrived"
            yield from _reason(name, fate, sent)
            if fate == RETRIES_EXHAUSTED and sent and _had_tries_left(sent, record):
                yield f"{name} is out of retries, and had some left"
            if fate == REJECTED and _is_rash(sent, record):
                yield f"{name} is rejected, and the server left it out only once"


def _reason(name: str, reason: str, sent: list[tuple[Arrival, Carried]]) -> Iterator[str]:
    told = {each.told for _, each in sent}
    match reason:
        case "internal":
            yield f"{name} is dropped because the worker failed"
        case "evicted" if sent:
            yield f"{name} is evicted, and it had been sent"
        case "rejected" if Told.REFUSED not in told:
            yield f"{name} is rejected, and the server never refused it"
        case "too_large" if not any("413" in request.reply and len(request.ids) == 1 for request, _ in sent):
            yield f"{name} is too large, and the server never said so of it alone"
        case "retries_exhausted" if not sent:
            yield f"{name} is out of retries, and it was never sent"
        case _:
            pass


def _is_rash(sent: list[tuple[Arrival, Carried]], record: Record) -> bool:
    """Return whether another try was due to an event that was left out once and never refused."""
    left_out = [
        request for request, each in sent if each.told is Told.REFUSED and '"errors"' in request.reply
    ]
    if len(left_out) != 1 or any(request.reply.startswith("HTTP 4") for request, _ in sent):
        return False
    return _had_tries_left(sent, record)


def _had_tries_left(sent: list[tuple[Arrival, Carried]], record: Record) -> bool:
    """Return whether retries and time were left for one more, however long the back-off."""
    limits = record.limits
    last = sent[-1][0].ended_at or 0.0
    floors = [
        come.ended_at + come.retry_after
        for come in record.arrivals
        if come.ended_at is not None and come.retry_after is not None
    ]
    latest = max([last + limits.backoff_max, *floors])
    tries = sum(request.costs_a_try for request, _ in sent)
    return tries <= limits.max_retries and latest <= sent[0][0].at + limits.max_elapsed


# The numbers.


def _numbers(record: Record) -> Iterator[str]:
    answers: Counter[str] = Counter()
    told: Counter[str] = Counter()
    offers = fates = 0
    before: Statistics | None = None
    for snapshot in record.snapshots:
        numbers = snapshot.numbers
        answers.update(offer.answer for offer in record.offers[offers : snapshot.offers])
        told.update(fated.fate for fated in record.fates[fates : snapshot.fates])
        offers, fates = snapshot.offers, snapshot.fates
        for complaint in (
            *_equations(numbers, record.limits),
            *_against_offers(numbers, answers),
            *_against_fates(numbers, told),
            *(_backwards(numbers, before) if before is not None else ()),
        ):
            yield f"at {snapshot.at:g} s {complaint}"
        before = numbers
    if before is None or _is_stale(record):
        yield "there is no snapshot from after the end"
    elif before.held or before.held_bytes or before.in_flight:
        yield (
            f"after the end {before.held} events are held, of {before.held_bytes} bytes, "
            f"and {before.in_flight} requests under way"
        )
    else:
        yield from _untold(before, record)


def _is_stale(record: Record) -> bool:
    """Return whether something happened after the last snapshot."""
    last = record.snapshots[-1]
    return (last.offers, last.fates) != (len(record.offers), len(record.fates))


def _equations(numbers: Statistics, limits: Limits) -> Iterator[str]:
    if numbers.offered != numbers.accepted + sum(numbers.refused.values()):
        yield f"offered is not accepted + refused: {numbers}"
    settled = numbers.delivered + sum(numbers.dropped.values()) + numbers.unconfirmed
    if numbers.accepted != settled + numbers.held:
        yield f"accepted is not delivered + dropped + unconfirmed + held: {numbers}"
    if not 0 <= numbers.held <= limits.max_queue_events:
        yield f"{numbers.held} events are held"
    if not 0 <= numbers.held_bytes <= limits.max_queue_bytes:
        yield f"{numbers.held_bytes} bytes are held"
    if bool(numbers.held) != bool(numbers.held_bytes):
        yield f"{numbers.held} events are held, of {numbers.held_bytes} bytes"
    if not 0 <= numbers.in_flight <= limits.max_in_flight:
        yield f"{numbers.in_flight} requests are under way"


def _against_offers(numbers: Statistics, answers: Mapping[str, int]) -> Iterator[str]:
    said = {ACCEPTED: numbers.accepted, **numbers.refused}
    for answer in sorted(said.keys() | answers.keys()):
        if said.get(answer, 0) != answers.get(answer, 0):
            yield f"{said.get(answer, 0)} events are {answer}, and the producers know of {answers[answer]}"


def _against_fates(numbers: Statistics, told: Mapping[str, int]) -> Iterator[str]:
    said = {DELIVERED: numbers.delivered, UNCONFIRMED: numbers.unconfirmed, **numbers.dropped}
    for fate in sorted(said.keys() | told.keys()):
        missing = said.get(fate, 0) - told.get(fate, 0)
        # What is evicted by a push is told in the worker's next turn.
        if missing < 0 or (missing and fate in {DELIVERED, UNCONFIRMED, REJECTED, TOO_LARGE}):
            yield f"{said.get(fate, 0)} events are {fate}, and the callbacks told {told.get(fate, 0)}"


def _backwards(numbers: Statistics, before: Statistics) -> Iterator[str]:
    for name in ("offered", "accepted", "delivered", "unconfirmed", "requests", "retries"):
        if getattr(numbers, name) < getattr(before, name):
            yield f"{name} fell from {getattr(before, name)} to {getattr(numbers, name)}"


def _untold(numbers: Statistics, record: Record) -> Iterator[str]:
    """What has no fate in the end. A callback that could not be called is counted, one event each."""
    has_fate = {fated.event_id for fated in record.fates}
    names = [
        offer.event_id
        for offer in record.offers
        if offer.answer == ACCEPTED and offer.event_id not in has_fate
    ]
    lost = numbers.callback_errors - record.callbacks_raised
    if len(names) != lost:
        yield (
            f"{len(names)} events have no fate after the end ({', '.join(names) or 'none'}), "
            f"and {lost} callbacks could not be called"
        )
    began = len(record.arrivals)
    if numbers.requests < began or numbers.requests > began + numbers.unconfirmed:
        yield f"{numbers.requests} requests are counted, and {began} came"


def _flushes(record: Record) -> Iterator[str]:
    for number, flushed in enumerate(record.flushes):
        result = flushed.result
        name = f"flush {number} ({result})"
        total = result.delivered + result.dropped + result.unconfirmed + result.held
        if total != flushed.held:
            yield f"{name} speaks of {total} events, and {flushed.held} were held"
        if result.ok != (result.delivered == total):
            yield f"{name} is not right about being ok"
        settled = {fated.event_id for fated in record.fates[: flushed.fates]}
        held = {
            offer.event_id
            for offer in record.offers[: flushed.offers]
            if offer.answer == ACCEPTED and offer.event_id not in settled
        }
        later = record.fates[flushed.fates : flushed.fates_after]
        told = Counter(fated.fate for fated in later if fated.event_id in held)
        if (told[DELIVERED], told[UNCONFIRMED]) != (result.delivered, result.unconfirmed):
            yield f"{name} is not what the callbacks told: {dict(told)}"
        # What was evicted before the call may be told after it, and what was evicted since is told later.
        dropped = told.total() - told[DELIVERED] - told[UNCONFIRMED] - told[EVICTED]
        if dropped > result.dropped:
            yield f"{name} is not what the callbacks told: {dict(told)}"
