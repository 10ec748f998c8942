"""The nine invariants of the engine, after every step of any story hypothesis can tell.

The oracle is a model of its own: a record per accepted event, what was put on the wire (bodies parsed
with the standard library's json), and a server that remembers what it stored. It never asks the code
how large, how many or how old anything is.
"""

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from honeyhive_batcher.config import Config
from honeyhive_batcher.core import wire
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.fragment import SESSIONLESS, Closing, Fragment, GroupKey
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.ledger import Barrier
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

PLAIN_OVERHEAD = len('{"model_events":[]}')
SESSION_OVERHEAD = len('{"model_events":[],"is_single_session":true,"session_properties":}')


@dataclass(eq=False)
class Record:
    """What the model knows of one accepted event."""

    name: str
    key: GroupKey
    data: bytes
    closing: bytes
    seq: int
    accepted_at: float
    maybe_sent: bool = False
    """An attempt with it may have arrived, and the policy is to try again."""
    sent: int = 0
    fragment: Fragment | None = None
    """As it was sent last; it tells twins apart."""
    fate: Fate | None = None
    reason: DropReason | None = None

    @property
    def size(self) -> int:
        return len(self.data) + len(self.closing)


@dataclass(eq=False)
class Sent:
    """What the model knows of one request."""

    attempt: Attempt
    records: list[Record]
    body: bytes
    method: str
    at: float
    opened_at: float
    """The instant before which no server had allowed a request."""
    is_first: bool

    @property
    def ids(self) -> list[str]:
        return [record.name for record in self.records if not record.closing]


@dataclass(eq=False)
class Batch:
    """What the model knows of a batch, by exactly what is in it."""

    first_at: float
    failures: int = 0
    flushes: int = 0
    is_over: bool = False


@dataclass(eq=False)
class Flush:
    """What the model knows of a barrier."""

    barrier: Barrier
    records: list[Record] = field(default_factory=list)


Says: TypeAlias = Literal["at work", "partly", "not now", "perhaps", "unsent", "wrong setting"]

small_times = st.sampled_from([0.0, 0.001, 0.05, 0.3, 1.0, 5.0, 40.0, 130.0])
retry_afters = st.sampled_from([None, None, 0.0, 0.5, 20.0, 3600.0])


class EngineMachine(RuleBasedStateMachine):
    """Drives one intake and one engine after another."""

    @initialize(
        events=st.integers(1, 12),
        size=st.sampled_from([300, 900, 2500, 100_000]),
        batch_events=st.integers(1, 5),
        batch_bytes=st.sampled_from([1024, 4096]),
        interval=st.sampled_from([0.0, 0.5, 1.0]),
        in_flight=st.integers(1, 6),
        retries=st.integers(0, 3),
        elapsed=st.sampled_from([0.0, 3.0, 120.0]),
        overflow=st.sampled_from(["drop_newest", "drop_oldest"]),
        on_ambiguous=st.sampled_from(["retry", "retry", "drop"]),
        seed=st.integers(0, 1000),
    )
    def begin(
        self,
        events: int,
        size: int,
        batch_events: int,
        batch_bytes: int,
        interval: float,
        in_flight: int,
        retries: int,
        elapsed: float,
        overflow: str,
        on_ambiguous: str,
        seed: int,
    ) -> None:
        self.config = Config.of(
            api_key="hh_test",
            max_queue_events=events,
            max_queue_bytes=size,
            max_batch_events=batch_events,
            max_batch_bytes=batch_bytes,
            flush_interval=interval,
            max_in_flight=in_flight,
            max_retries=retries,
            max_elapsed=elapsed,
            overflow=overflow,
            on_ambiguous=on_ambiguous,
            backoff_max=8.0,
        )
        self.jitter = random.Random(seed).random
        self.now = 1000.0
        self.intake = Intake(self.config.queue, self.config.batch)
        self.intake.ledger.keep_settlements = True
        self.engine = self.new_engine()
        self.phases = [Phase.OPEN]
        self.names = itertools.count()
        self.sessions: list[GroupKey] = []
        self.records: list[Record] = []
        self.open: dict[int, Record] = {}
        self.queue: list[Record] = []  # never sent, oldest first; and closings that were put back
        self.refused: Counter[Admission] = Counter()
        self.in_flight: list[Sent] = []
        self.requests: list[Sent] = []
        self.unchecked: list[Sent] = []
        self.batches: dict[tuple[int, ...], Batch] = {}
        self.flushes: list[Flush] = []
        self.flush_count = 0
        self.is_flush_pending = False
        self.last_cut: dict[GroupKey, int] = {}
        self.floor_at = float("-inf")
        self.held_until = float("-inf")
        self.poison: set[str] = set()
        self.stored: set[str] = set()
        self.named: set[str] = set()
        self.expects: dict[int, set[Fate]] = {}
        self.settled: list[Fragment] = []
        self.twins: set[str] = set()

    def new_engine(self) -> Engine:
        return Engine(
            self.intake,
            max_in_flight=self.config.endpoint.max_in_flight,
            retry=self.config.retry,
            jitter=self.jitter,
        )

    # Pushing.

    @rule(
        padding=st.sampled_from([0, 0, 3, 40, 150, 300, 700, 1100]),
        where=st.integers(0, 4),
        is_poison=st.sampled_from([False] * 8 + [True]),
        is_bare=st.sampled_from([False] * 8 + [True]),
    )
    def push(self, padding: int, where: int, is_poison: bool, is_bare: bool) -> None:
        name = f"e{next(self.names)}"
        if is_poison:
            self.poison.add(name)
        bare = b"-Infinity" if is_bare else b"0"
        data = b'{"event_id":"%b","n":%b,"x":"%b"}' % (name.encode(), bare, b"x" * padding)
        self.offer(name, data, self.key(where))

    @rule(count=st.integers(2, 8))
    def push_many(self, count: int) -> None:
        for _ in range(count):
            name = f"e{next(self.names)}"
            self.offer(name, b'{"event_id":"%b"}' % name.encode(), SESSIONLESS)

    @rule()
    def push_twin(self) -> None:
        """The application pushes an event a second time."""
        keys = {SESSIONLESS, *self.sessions}  # a session that was closed has another key from then on
        twins = [record for record in self.open.values() if not record.closing and record.key in keys]
        if twins:
            self.twins.add(twins[-1].name)
            self.offer(twins[-1].name, twins[-1].data, twins[-1].key)

    def key(self, where: int) -> GroupKey:
        if where < 2:
            return SESSIONLESS
        while len(self.sessions) < 3:
            name = f"s{next(self.names)}"
            properties = json.dumps({"session_id": name, "pad": "p" * (40 * len(self.sessions))})
            self.sessions.append(GroupKey(session_id=name, properties=properties.encode()))
        return self.sessions[where - 2]

    @precondition(lambda self: self.sessions)
    @rule(where=st.integers(2, 4), padding=st.sampled_from([0, 30, 800, 1500]))
    def close_session(self, where: int, padding: int) -> None:
        key = self.key(where)
        self.sessions.remove(key)
        update = json.dumps({"event_id": key.session_id, "outputs": {"o": "y" * padding}}).encode()
        properties = json.dumps({"session_id": key.session_id, "outputs": "y" * padding}).encode()
        self.offer(f"end of {key.session_id}", update, key, closing=properties)

    def offer(self, name: str, data: bytes, key: GroupKey, closing: bytes = b"") -> None:
        expected, evicted = self.expected_admission(data, key, closing)
        fragment = Closing(data, name, closing=closing) if closing else Fragment(data, name)
        is_taken = key is SESSIONLESS and not closing and self.intake.take(fragment)
        admission = Admission.ACCEPTED if is_taken else self.intake.admit(fragment, key, self.now)
        assert admission is expected
        for record in evicted:
            self.queue.remove(record)
            self.expect([record], Fate.DROPPED)
        if admission:
            assert fragment.accepted_at <= self.now
            record = Record(name, key, data, closing, len(self.records) + 1, fragment.accepted_at)
            self.records.append(record)
            self.open[record.seq] = record
            self.queue.append(record)
        else:
            self.refused[admission] += 1
        self.take_fates(DropReason.EVICTED)

    def expected_admission(
        self, data: bytes, key: GroupKey, closing: bytes
    ) -> tuple[Admission, list[Record]]:
        """Say what has to become of an event, and which others have to make room for it."""
        limits = self.config.queue
        overhead = PLAIN_OVERHEAD if key is SESSIONLESS else SESSION_OVERHEAD + len(key.properties)
        if self.engine.phase is not Phase.OPEN:
            return Admission.CLOSED, []
        kept = list(self.open.values())
        size = len(data) + len(closing)

        def held_with(kept: list[Record]) -> int:
            keys = {record.key for record in kept} | {key}
            return size + sum(r.size for r in kept) + sum(len(each.properties) for each in keys)

        charge = held_with(kept) - held_with_none(kept)
        if not closing and len(data) + overhead > self.config.batch.max_batch_bytes:
            return Admission.TOO_LARGE, []
        if charge > limits.max_queue_bytes:
            return Admission.TOO_LARGE, []

        def fits(kept: list[Record]) -> bool:
            return len(kept) < limits.max_queue_events and held_with(kept) <= limits.max_queue_bytes

        evictable = [record for record in self.queue if not record.closing]
        if fits(kept):
            return Admission.ACCEPTED, []
        if limits.overflow == "drop_newest":
            return Admission.QUEUE_FULL, []
        # What the properties of vanishing groups give back is not counted on: better to refuse one
        # event than to evict others in vain.
        least_events = len(kept) + 1 - len(evictable)
        least_bytes = held_with(kept) - sum(record.size for record in evictable)
        if least_events > limits.max_queue_events or least_bytes > limits.max_queue_bytes:
            return Admission.QUEUE_FULL, []
        evicted: list[Record] = []
        while not fits(kept):
            oldest = evictable.pop(0)
            kept.remove(oldest)
            evicted.append(oldest)
        return Admission.ACCEPTED, evicted

    # Time.

    @rule(delay=small_times)
    def wait(self, delay: float) -> None:
        """Before `wake_at` there is nothing to do; after it there is."""
        wake_at = self.engine.wake_at()
        was_pending = self.is_flush_pending
        self.now += delay
        begun = self.poll()
        if not was_pending:
            assert bool(begun) == (wake_at is not None and wake_at <= self.now)

    @rule()
    def wait_until_there_is_work(self) -> None:
        wake_at = self.engine.wake_at()
        if wake_at is not None:
            self.now = max(self.now, wake_at)
            assert self.poll()

    def poll(self) -> list[Sent]:
        begun: list[Sent] = []
        self.is_flush_pending = False
        for attempt in self.engine.poll(self.now):
            request = wire.build_request(attempt.batch)
            records = [self.records[fragment.seq - 1] for fragment in attempt.batch.fragments]
            is_first = not any(record.sent for record in records if not record.closing)
            opened_at = max(self.floor_at, self.held_until)
            sent = Sent(attempt, records, request.body, request.method, self.now, opened_at, is_first)
            for record, fragment in zip(records, attempt.batch.fragments, strict=True):
                record.fragment = fragment
                record.sent += 1
                if record in self.queue:
                    self.queue.remove(record)
            begun.append(sent)
        self.in_flight += begun
        self.requests += begun
        self.unchecked += begun
        return begun

    # Replies.

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 5), form=st.sampled_from(["ids", "none", "shouted", "foreign", "html", "put"]))
    def reply_like_a_strict_server(self, which: int, form: str) -> None:
        """It stores what it can, names it in one way or another, and refuses what it should."""
        sent = self.pick(which)
        if sent.method == "PUT":
            self.reply(sent, Response(status=200, body=b'{"success":true}'), {Fate.DELIVERED})
        elif b"Infinity" in sent.body or self.poison.intersection(sent.ids):
            self.reply_refusal(sent, 400)
        elif form in {"ids", "shouted"}:
            names = [name.upper() if form == "shouted" else name for name in sent.ids]
            self.store(sent.ids, is_named=True)
            self.reply(sent, ids_reply(200, names), {Fate.DELIVERED})
        else:
            self.store(sent.ids)
            body = {
                "none": b'{"success":true}',
                "foreign": json.dumps({"event_ids": [f"?{bit}" for bit in range(len(sent.ids))]}).encode(),
                "html": b"<html>",
            }.get(form, b"")
            self.reply(sent, Response(status=200, body=body), {Fate.DELIVERED})

    @precondition(lambda self: self.in_flight)
    @rule(
        which=st.integers(0, 5),
        mask=st.integers(0, 31),
        errors=st.sampled_from(["all", "all", "fewer", "none"]),
        status=st.sampled_from([500, 500, 200, 207]),
        extra=st.sampled_from([[], [], ["foreign"], [None, {}]]),
        says=st.booleans(),
        retry_after=retry_afters,
    )
    def reply_partly(
        self,
        which: int,
        mask: int,
        errors: str,
        status: int,
        extra: list[Any],
        says: bool,
        retry_after: float | None,
    ) -> None:
        sent = self.pick(which)
        ids = sent.ids
        chosen = [name for bit, name in enumerate(ids) if mask >> bit & 1]
        rest = len(ids) - len(chosen)
        count = {"all": rest, "fewer": max(0, rest - 1), "none": 0}[errors]
        facts = {"event_ids": chosen + extra, "errors": ["why"] * count, "success": says}
        reply = Response(status=status, body=json.dumps(facts).encode(), retry_after=retry_after)
        foreign = "foreign" in extra
        if not ids:
            sure = status != 500 and says
            if sure:
                self.reply(sent, reply, {Fate.DELIVERED})
            else:
                self.reply(sent, reply, None, says="perhaps")
        elif not rest:
            self.store(ids, is_named=True)
            self.reply(sent, reply, {Fate.DELIVERED})
        elif rest and foreign and (chosen or says):
            is_whole = says and rest == 1 and status != 500 and not count
            self.store(chosen, is_named=True)
            self.store(ids if is_whole else ids[:1])
            self.reply(sent, reply, {Fate.DELIVERED} if is_whole else {Fate.DELIVERED, Fate.UNCONFIRMED})
        elif rest and not foreign and (chosen or count >= rest):
            self.store(chosen, is_named=True)
            self.reply(sent, reply, None, created=chosen, says="partly")
        else:
            self.store([name for bit, name in enumerate(ids) if mask >> (4 - bit) & 1])
            self.reply(sent, reply, None, says="perhaps")

    @precondition(lambda self: self.in_flight)
    @rule(
        which=st.integers(0, 5),
        status=st.sampled_from([408, 425, 429, 503]),
        retry_after=retry_afters,
    )
    def reply_not_now(self, which: int, status: int, retry_after: float | None) -> None:
        reply = Response(status=status, body=b"<html>", retry_after=retry_after)
        self.reply(self.pick(which), reply, None, says="not now")

    @precondition(lambda self: self.in_flight)
    @rule(
        which=st.integers(0, 5),
        status=st.sampled_from([500, 501, 502, 504, 599, None]),
        body=st.sampled_from([b"", b"<html>", b"[" * 5000, b'{"event_ids":{}}', b"\xff", b"null", b"[1]"]),
        arrived=st.booleans(),
        retry_after=retry_afters,
    )
    def reply_ambiguously(
        self, which: int, status: int | None, body: bytes, arrived: bool, retry_after: float | None
    ) -> None:
        sent = self.pick(which)
        if status == 501 and sent.method == "PUT":
            status = 502  # the other refuses an update
        if arrived:
            self.store(sent.ids)
        reply: Reply = Failure(cause="time-out", unsent=False)
        if status is not None:
            reply = Response(status=status, body=body, retry_after=retry_after)
        self.reply(sent, reply, None, says="perhaps")

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 5))
    def reply_never_connected(self, which: int) -> None:
        self.reply(self.pick(which), Failure(cause="refused", unsent=True), None, says="unsent")

    @precondition(lambda self: self.in_flight)
    @rule(
        which=st.integers(0, 5),
        status=st.sampled_from([301, 307, 401, 402, 403, 404, 405, 407, 410]),
        retry_after=retry_afters,
    )
    def reply_misconfigured(self, which: int, status: int, retry_after: float | None) -> None:
        sent = self.pick(which)
        reply = Response(status=status, body=b'{"statusCode":401}', retry_after=retry_after)
        if sent.method == "PUT" and status in {402, 403, 404, 405, 410}:
            self.reply(sent, reply, self.loss(sent))
            return
        self.held_until = self.now + 60.0
        self.reply(sent, reply, None, says="wrong setting")

    @precondition(lambda self: self.in_flight)
    @rule(
        which=st.integers(0, 5), status=st.sampled_from([400, 406, 413, 418, 422]), retry_after=retry_afters
    )
    def reply_refused(self, which: int, status: int, retry_after: float | None) -> None:
        """Also what was stored before may be refused, because it was stored before."""
        self.reply_refusal(self.pick(which), status, retry_after)

    def reply_refusal(self, sent: Sent, status: int, retry_after: float | None = None) -> None:
        reply = Response(status=status, body=b"<pre>no</pre>", retry_after=retry_after)
        self.reply(sent, reply, None, may_drop={DropReason.REJECTED, DropReason.TOO_LARGE})

    def pick(self, which: int) -> Sent:
        return self.in_flight[which % len(self.in_flight)]

    def store(self, ids: list[str], *, is_named: bool = False) -> None:
        self.stored.update(ids)
        if is_named:
            self.named.update(ids)

    def loss(self, sent: Sent) -> set[Fate]:
        return {Fate.UNCONFIRMED if sent.records[0].maybe_sent else Fate.DROPPED}

    def reply(
        self,
        sent: Sent,
        reply: Reply,
        fates: set[Fate] | None,
        *,
        created: Sequence[str] = (),
        says: Says = "at work",
        may_drop: set[DropReason] | None = None,
    ) -> None:
        """Give the engine a reply; note what it may make of it.

        `fates` is what all of the batch has to meet at once; None leaves that to the rules of retries.
        """
        self.in_flight.remove(sent)
        batch = self.batches[self.name_of(sent)]
        if isinstance(reply, Response) and reply.retry_after is not None and fates != {Fate.DELIVERED}:
            self.floor_at = max(self.floor_at, self.now + reply.retry_after)
        if says == "perhaps" and self.config.retry.on_ambiguous == "drop":
            fates = {Fate.UNCONFIRMED}
        elif says == "perhaps":
            for record in sent.records:
                record.maybe_sent = True
        if says in {"at work", "partly"}:
            self.held_until = min(self.held_until, self.now)
        self.engine.complete(sent.attempt, reply, self.now)
        # Neither an outage nor what the server asked to wait for is held against a batch; but what may
        # have arrived counts in any case.
        if says in {"partly", "perhaps"} or (says == "not now" and self.engine._pacing.is_sound(self.now)):
            batch.failures += 1
        if says in {"partly", "not now", "perhaps", "unsent"}:
            batch.is_over = self.is_over(batch)
        self.settled += [fragment for fragment in sent.attempt.batch.fragments if fragment.settled]
        left = Counter(created)
        for record in sent.records:
            if fates is not None:
                self.expect([record], *fates)
            elif not record.closing and left[record.name]:
                left[record.name] -= 1  # of twins the first
                self.expect([record], Fate.DELIVERED)
            if record.closing and not sent.attempt.batch.fragments[-1].settled and may_drop:
                self.queue.insert(0, record)  # it may travel alone from now on
        allowed = {DropReason.REJECTED, DropReason.RETRIES_EXHAUSTED} | (may_drop or set())
        self.take_fates(*allowed)

    # Flush, and the end of a run.

    @rule()
    def flush(self) -> None:
        barrier = self.intake.raise_barrier()
        self.flushes.append(Flush(barrier, list(self.open.values())))
        self.flush_count += 1
        self.is_flush_pending = True

    @precondition(lambda self: self.flushes)
    @rule()
    def stop_waiting_for_a_flush(self) -> None:
        self.intake.lower_barrier(self.flushes.pop(0).barrier)

    @precondition(lambda self: self.in_flight)
    @rule()
    def lose_replies(self) -> None:
        """The loop is gone, and another takes over."""
        lost, self.in_flight = self.in_flight, []
        for sent in lost:
            batch = self.batches[self.name_of(sent)]
            batch.failures += 1
            for record in sent.records:
                record.maybe_sent = True
        for attempt in list(self.engine.in_flight):
            self.engine.complete(attempt, Failure(cause="its loop was closed", unsent=False), self.now)
        for sent in lost:
            self.batches[self.name_of(sent)].is_over = self.is_over(self.batches[self.name_of(sent)])
        self.take_fates(DropReason.RETRIES_EXHAUSTED)

    @precondition(lambda self: self.engine.phase is Phase.OPEN)
    @rule(chance=st.integers(0, 3))
    def drain(self, chance: int) -> None:
        if chance == 0:
            self.engine.drain()
            self.flush_count += 1
            self.is_flush_pending = True

    @rule(chance=st.integers(0, 7), reason=st.sampled_from([DropReason.SHUTDOWN, DropReason.INTERNAL]))
    def abandon(self, chance: int, reason: DropReason) -> None:
        if chance and self.engine.phase is Phase.OPEN:
            return
        for sent in self.in_flight:
            self.expect(sent.records, Fate.UNCONFIRMED)
        flying = {record.seq for sent in self.in_flight for record in sent.records}
        for record in self.open.values():
            if record.seq not in flying:
                self.expect([record], Fate.UNCONFIRMED if record.maybe_sent else Fate.DROPPED)
        self.engine.abandon(reason)
        self.in_flight.clear()
        self.queue.clear()
        self.take_fates(reason)

    @precondition(lambda self: self.engine.phase is Phase.CLOSED)
    @rule()
    def run_again(self) -> None:
        self.phase()
        self.intake.reopen()
        self.engine = self.new_engine()
        self.phases = [Phase.OPEN]
        self.floor_at = self.held_until = float("-inf")
        self.is_flush_pending = False

    # Fates.

    def expect(self, records: list[Record], *fates: Fate) -> None:
        for record in records:
            self.expects[record.seq] = set(fates)

    def take_fates(self, *reasons: DropReason) -> None:
        """Match what the ledger tells with the records, event by event."""
        for settlement in self.intake.take_settlements():
            for name in settlement.event_ids:
                candidates = [record for record in self.open.values() if record.name == name]
                assert candidates, f"{name} got a fate too many"
                # Of twins the one that it can be.
                wanted = [each for each in candidates if settlement.fate in self.expects.get(each.seq, ())]
                settled = [each for each in candidates if each.fragment is not None and each.fragment.settled]
                unforeseen = [each for each in settled if each.seq not in self.expects]
                record = (wanted or unforeseen or candidates)[0]
                del self.open[record.seq]
                record.fate, record.reason = settlement.fate, settlement.reason
                expected = self.expects.pop(record.seq, None)
                assert expected is None or settlement.fate in expected, (record, settlement)
                if settlement.fate is Fate.DROPPED:
                    assert expected is not None or settlement.reason is not DropReason.EVICTED, "in vain"
                    assert settlement.reason in reasons
                    # Never a lie: what is said to be lost cannot have arrived.
                    assert not record.maybe_sent
                    assert record.name not in self.stored or record.name in self.twins or record.closing
                elif settlement.fate is Fate.DELIVERED:
                    assert record.name in self.stored or record.closing
                elif expected is None:
                    assert record.maybe_sent
        assert not self.expects, "something should have got its fate by now"

    # The invariants.

    @invariant()
    def conservation(self) -> None:
        """1, for the sums and for every event."""
        statistics = self.intake.statistics()
        assert statistics.accepted == len(self.records)
        assert statistics.refused == {reason.value: n for reason, n in self.refused.items()}
        assert statistics.offered == len(self.records) + self.refused.total()
        fates = Counter(record.fate for record in self.records)
        assert statistics.delivered == fates[Fate.DELIVERED]
        assert statistics.unconfirmed == fates[Fate.UNCONFIRMED]
        reasons = Counter(record.reason.value for record in self.records if record.reason is not None)
        assert statistics.dropped == reasons
        assert statistics.held == fates[None] == len(self.open)
        for flush in self.flushes:
            became = Counter(record.fate for record in flush.records)
            barrier = flush.barrier
            counted = (barrier.held, barrier.delivered, barrier.dropped, barrier.unconfirmed)
            assert counted == tuple(
                became[fate] for fate in (None, Fate.DELIVERED, Fate.DROPPED, Fate.UNCONFIRMED)
            )

    @invariant()
    def bound(self) -> None:
        """2: events and bytes, and the properties of every session with anything held."""
        statistics = self.intake.statistics()
        held = list(self.open.values())
        assert statistics.held_bytes == held_with_none(held)
        assert statistics.held_bytes <= self.config.queue.max_queue_bytes
        assert statistics.held <= self.config.queue.max_queue_events
        assert statistics.in_flight == len(self.in_flight) <= self.config.endpoint.max_in_flight

    @invariant()
    def batch(self) -> None:
        """3: every body that was sent, byte for byte and as JSON."""
        for sent in self.unchecked:
            events = [record for record in sent.records if not record.closing]
            closings = [record for record in sent.records if record.closing]
            assert len(closings) <= 1
            assert len({record.key for record in sent.records}) == 1
            key = sent.records[0].key
            if not events:
                assert (sent.method, sent.body) == ("PUT", closings[0].data)
                continue
            assert sent.method == "POST"
            assert 1 <= len(events) <= self.config.batch.max_batch_events
            assert len(sent.body) <= self.config.batch.max_batch_bytes
            facts = json.loads(sent.body)
            assert [each["event_id"] for each in facts["model_events"]] == [each.name for each in events]
            joined = b",".join(record.data for record in events)
            mended = joined.replace(b"-Infinity", b"null")
            properties = closings[0].closing if closings else key.properties
            ending = b'],"is_single_session":true,"session_properties":' + properties + b"}"
            ending = b"]}" if key is SESSIONLESS else ending
            assert sent.body in {b'{"model_events":[' + each + ending for each in (joined, mended)}
            assert events == sorted(events, key=lambda record: record.seq)
            if sent.is_first:
                assert events[0].seq > self.last_cut.get(key, 0)  # first in, first out
                self.last_cut[key] = events[-1].seq

    @invariant()
    def one_fate(self) -> None:
        """4."""
        for fragment in self.settled[-1:]:
            before = self.intake.statistics()
            try:
                self.intake.settle([fragment], Fate.DELIVERED)
            except InternalError:
                assert self.intake.statistics() == before
            else:
                raise AssertionError("an event was settled twice")

    @invariant()
    def wake(self) -> None:
        """5: an instant is promised exactly when something is held that no reply has to release first."""
        wake_at = self.engine.wake_at()
        if self.engine.phase is Phase.CLOSED:
            assert wake_at is None
        elif not self.in_flight:
            assert (wake_at is None) == (not self.open)
        is_held = self.intake.statistics().endpoint == Endpoint.HELD
        assert not self.engine.is_stalled or (is_held and not self.in_flight)

    @invariant()
    def age(self) -> None:
        """6: what was left in the queue by the poll of this instant is young, or there was no way out."""
        if self.engine.phase is not Phase.OPEN or not self.unchecked:
            return
        pacing = self.engine._pacing
        if (
            self.unchecked[-1].at == self.now
            and len(self.in_flight) < pacing.limit
            and pacing.opens_at(self.intake.ledger.seq) <= self.now
        ):
            for record in self.queue:
                is_overdue = record.accepted_at + self.config.batch.flush_interval <= self.now
                is_behind = record.accepted_at == self.now  # pushed after the poll
                assert not is_overdue or record.closing or is_behind

    @invariant()
    def retry(self) -> None:
        """7: bounded, not before a server allows it, with the same bytes, and never what it named."""
        for sent in self.unchecked:
            assert sent.at >= sent.opened_at
            name = self.name_of(sent)
            batch = self.batches.setdefault(name, Batch(sent.at, flushes=self.flush_count))
            extra = self.flush_count - batch.flushes
            # A flush lets the backlog of an outage go: what was planned by its pace stays planned.
            assert not batch.is_over or extra
            assert batch.failures <= self.config.retry.max_retries + extra
            for event in sent.ids:
                assert event not in self.named or event in self.twins
        self.unchecked = []

    @invariant()
    def phase(self) -> None:
        """8."""
        phase = self.engine.phase
        if phase is not self.phases[-1]:
            self.phases.append(phase)
        order = [Phase.OPEN, Phase.DRAINING, Phase.CLOSED]
        assert self.phases == [each for each in order if each in self.phases]
        assert self.intake.is_open == (phase is Phase.OPEN)
        if phase is Phase.CLOSED:
            assert not self.open
            assert self.engine.poll(self.now) == []

    @invariant()
    def host(self) -> None:
        """9: nothing a server says is raised (each rule would fail), and what is told holds no payload."""
        assert "x" * 20 not in (self.intake.statistics().last_error or "")

    def is_over(self, batch: Batch) -> bool:
        """Whether its time for retries is: by now the next attempt is planned within it, or there is none."""
        since = max(batch.first_at, self.engine._pacing.sound_since)
        return self.now > since + self.config.retry.max_elapsed

    def name_of(self, sent: Sent) -> tuple[int, ...]:
        return tuple(record.seq for record in sent.records)

    def teardown(self) -> None:
        """Liveness: with a healthy server, and time that runs along `wake_at`, every step delivers."""
        if not hasattr(self, "engine") or self.engine.phase is Phase.CLOSED:
            return
        self.poison.clear()
        for _ in range(len(self.open) + len(self.in_flight) + 1):
            for sent in list(self.in_flight):
                self.store(sent.ids, is_named=True)
                self.reply(sent, ids_reply(200, sent.ids), {Fate.DELIVERED})
            self.conservation()
            wake_at = self.engine.wake_at()
            if wake_at is None:
                break
            self.now = max(self.now, wake_at)
            assert self.poll()
            for check in (self.bound, self.batch, self.age, self.retry):
                check()
        assert not self.open
        statistics = self.intake.statistics()
        assert (statistics.held, statistics.held_bytes, statistics.in_flight) == (0, 0, 0)
        assert self.intake.ripe_at() is None


def held_with_none(records: list[Record]) -> int:
    """The bytes that these hold, with the properties of each of their sessions once."""
    keys = {record.key for record in records}
    return sum(record.size for record in records) + sum(len(key.properties) for key in keys)


def ids_reply(status: int, ids: list[str]) -> Response:
    return Response(status=status, body=json.dumps({"event_ids": ids, "success": True}).encode())


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
