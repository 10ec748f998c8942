"""An engine driven by hand: a clock that moves when told, fixed jitter, and a log of all that was sent."""

import heapq
import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any, final

from msgspec import Struct

from honeyhive_batcher.config import Config
from honeyhive_batcher.core import wire
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.fragment import SESSIONLESS, Closing, Fragment, GroupKey
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Admission, Attempt, Failure, Jitter, Reply, Response

UNSENT = Failure(cause="connection refused", unsent=True)
LOST = Failure(cause="no answer", unsent=False)


def named(*ids: str, status: int = 200, errors: int = 0, retry_after: float | None = None) -> Response:
    """An answer that names the events it created."""
    facts: dict[str, Any] = {"event_ids": ids, "success": True}
    if errors:
        facts["errors"] = ["Could not create event due to missing model"] * errors
    return Response(status=status, body=json.dumps(facts).encode(), retry_after=retry_after)


def answer(status: int, retry_after: float | None = None) -> Response:
    """An answer with nothing to read in it."""
    return Response(status=status, body=b"<html>no JSON</html>", retry_after=retry_after)


def event(name: str, padding: int = 0) -> bytes:
    """The JSON of an event: 22 bytes, its name and its padding."""
    return b'{"event_id":"%b","x":"%b"}' % (name.encode(), b"x" * padding)


def body_of(*events: bytes) -> bytes:
    """The body that carries these events without a session."""
    return b'{"model_events":[' + b",".join(events) + b"]}"


def session(name: str, properties: bytes | None = None) -> GroupKey:
    return GroupKey(session_id=name, properties=properties or json.dumps({"session_id": name}).encode())


class Sent(Struct, frozen=True, eq=False, kw_only=True):
    """One request, as a server sees it."""

    at: float
    method: str
    path: str
    body: bytes
    ids: tuple[str, ...]
    properties: object
    attempt: Attempt

    @property
    def all_named(self) -> Response:
        return named(*self.ids)


Server = Callable[[Sent], Reply]


@final
class Rig:
    """An intake and an engine. Time stands at `now` until it is set."""

    def __init__(self, *, jitter: Jitter = lambda: 0.5, **settings: Any) -> None:
        self.config = Config.of(api_key="hh_test", **settings)
        self.now = 0.0
        self.intake = Intake(self.config.queue, self.config.batch)
        self.intake.ledger.keep_settlements = True
        self.intake.wake = self._wake
        self._is_woken = False
        self._jitter = jitter
        self.engine = self._new_engine()
        self.sent: list[Sent] = []
        self.fates: dict[str, list[str]] = {}
        self._replies: list[tuple[float, int, Attempt, Reply]] = []
        self._order = itertools.count()

    def _new_engine(self, left: Iterable[Attempt] = ()) -> Engine:
        return Engine(
            self.intake,
            max_in_flight=self.config.endpoint.max_in_flight,
            retry=self.config.retry,
            jitter=self._jitter,
            left=left,
        )

    def hand_over(self) -> None:
        """Begin another run, which goes on with what this one leaves."""
        left = self.engine.hand_over(self.now)
        self.intake.reopen()
        self.engine = self._new_engine(left)

    def run_again(self) -> None:
        """Begin another run after an abandoned one."""
        self.intake.reopen()
        self.engine = self._new_engine()

    @property
    def statistics(self) -> Statistics:
        return self.intake.statistics()

    def push(self, *names: str, key: GroupKey = SESSIONLESS, padding: int = 0) -> Admission:
        """Push events; return the admission of the last."""
        admission = Admission.ACCEPTED
        for name in names:
            admission = self.push_bytes(name, event(name, padding), key)
        return admission

    def push_bytes(self, name: str, data: bytes, key: GroupKey = SESSIONLESS) -> Admission:
        fragment = Fragment(data, name)
        if key is SESSIONLESS and self.intake.take(fragment):
            return Admission.ACCEPTED
        return self.intake.admit(fragment, key, self.now)

    def push_many(self, count: int, prefix: str = "e") -> list[str]:
        names = [f"{prefix}{index}" for index in range(count)]
        self.push(*names)
        return names

    def close_session(self, key: GroupKey, properties: bytes) -> Admission:
        update = b'{"event_id":"%b","outputs":{}}' % key.session_id.encode()
        closing = Closing(update, f"end of {key.session_id}", closing=properties)
        return self.intake.admit(closing, key, self.now)

    def flush(self) -> None:
        """Make everything queued ripe; nobody waits for it."""
        self.intake.lower_barrier(self.intake.raise_barrier())

    def poll(self) -> list[Attempt]:
        """Begin what may begin now, and log it."""
        begun = self.engine.poll(self.now)
        for attempt in begun:
            request = wire.build_request(attempt.batch)
            facts = json.loads(request.body)
            events = facts.get("model_events", [facts])
            self.sent.append(
                Sent(
                    at=self.now,
                    method=request.method,
                    path=request.path,
                    body=request.body,
                    ids=tuple(each["event_id"] for each in events),
                    properties=facts.get("session_properties"),
                    attempt=attempt,
                )
            )
        return begun

    def poll_one(self) -> Attempt:
        (attempt,) = self.poll()
        return attempt

    def send_at(self, now: float) -> Attempt:
        """Expect the next work at exactly `now`, one request; go there and begin it."""
        wake_at = self.engine.wake_at()
        assert wake_at is not None
        assert max(wake_at, self.now) == now
        self.now = now
        return self.poll_one()

    def reply(self, attempt: Attempt, reply: Reply, *, at: float | None = None) -> None:
        self.now = self.now if at is None else at
        self.engine.complete(attempt, reply, self.now)
        self._note_fates()

    def abandon(self) -> None:
        self.engine.abandon()
        self._note_fates()

    def serve(
        self,
        server: Server,
        *,
        until: float = float("inf"),
        latency: float = 0.01,
        pushes: Iterable[tuple[float, str]] = (),
        max_requests: int = 100_000,
    ) -> None:
        """Let time run: answer every request by `server` after `latency`, and push at the given instants,
        until there is nothing more to do or the next thing to do is later than `until`.

        As in a real run, the engine is looked at when it asked for it, after a reply, and when the intake
        says that there is news; not at every push.
        """
        coming = itertools.chain(pushes, [(float("inf"), "")])
        push_at, name = next(coming)
        enough = len(self.sent) + max_requests
        while True:
            self._is_woken = False
            first = len(self.sent)
            self.poll()
            for sent in self.sent[first:]:
                reply_at = self.now + latency
                heapq.heappush(self._replies, (reply_at, next(self._order), sent.attempt, server(sent)))
            assert len(self.sent) <= enough, "too many requests"
            wake_at = self.engine.wake_at()
            reply_at = self._replies[0][0] if self._replies else float("inf")
            instant = min(reply_at, float("inf") if wake_at is None else wake_at)
            while push_at <= min(instant, until, 1e300) and not self._is_woken:
                self.now = max(self.now, push_at)
                self.push(name)
                push_at, name = next(coming)
            if self._is_woken:
                continue
            if instant > until or instant == float("inf"):
                self.now = max(self.now, until) if until < float("inf") else self.now
                return
            self.now = max(self.now, instant)
            while self._replies and self._replies[0][0] <= self.now:
                _, _, attempt, reply = heapq.heappop(self._replies)
                self.reply(attempt, reply)

    def _wake(self) -> None:
        self._is_woken = True

    def _note_fates(self) -> None:
        for settlement in self.intake.take_settlements():
            fate = settlement.reason.value if settlement.reason is not None else settlement.fate.value
            for name in settlement.event_ids:
                self.fates.setdefault(name, []).append(fate)

    def fate(self, name: str) -> str | None:
        """The one fate of an event, if it has one yet."""
        self._note_fates()
        if name not in self.fates:
            return None
        (fate,) = self.fates[name]
        return fate

    def with_fate(self, fate: str) -> set[str]:
        """All events that met this fate."""
        self._note_fates()
        assert all(len(fates) == 1 for fates in self.fates.values())
        return {name for name, fates in self.fates.items() if fates == [fate]}

    def assert_settled(self) -> None:
        """All that was accepted has exactly one fate, and all capacity is back."""
        statistics = self.statistics
        self._note_fates()
        assert sum(len(fates) for fates in self.fates.values()) == statistics.accepted
        assert (statistics.held, statistics.held_bytes, statistics.in_flight) == (0, 0, 0)
        assert statistics.accepted == (
            statistics.delivered + sum(statistics.dropped.values()) + statistics.unconfirmed
        )
