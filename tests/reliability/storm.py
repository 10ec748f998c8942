"""A fleet of batchers, and one server that is away for a minute: in virtual time, engines without a loop.

Each batcher is offered a batch a second; the server takes half as many again and answers 503 to what is
more. Beside the fleet, the same minute is lived through by loops that send one batch after another and
try again every second.
"""

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, final

from msgspec import Struct

from honeyhive_batcher.config import Config
from honeyhive_batcher.core.engine import Engine
from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Failure, Reply, Response
from tests.reliability.rows import Row, Size

BEGINS_AT, OUTAGE = 20.0, 60.0
HEALS_AT = BEGINS_AT + OUTAGE
ENDS_AT = HEALS_AT + 240.0
CAPACITY = 1.5
LATENCY = 0.05


class Trouble(Struct, frozen=True):
    """What an outage does to a request."""

    name: str
    reply: Reply
    after: float
    """Seconds until the client knows."""


TROUBLES = (
    Trouble("refused connections", Failure(cause="connection refused", unsent=True), 0.001),
    Trouble("503", Response(status=503), 0.02),
    Trouble("429", Response(status=429), 0.02),
    Trouble("500", Response(status=500), 0.02),
    Trouble("a black hole", Failure(cause="timed out", unsent=False), 30.0),
)


Step: TypeAlias = Callable[..., None]


@final
class Time:
    """Runs what is planned at its instant."""

    def __init__(self) -> None:
        self.now = 0.0
        self._agenda: list[tuple[float, int, Step, tuple[Any, ...]]] = []
        self._order = itertools.count()

    def at(self, instant: float, step: Step, *values: Any) -> None:
        heapq.heappush(self._agenda, (max(instant, self.now), next(self._order), step, values))

    def run(self, until: float) -> None:
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, step, values = heapq.heappop(self._agenda)
            step(*values)
        self.now = until


@final
class Server:
    """Is away for a while; when there it takes so many requests in a second and 503 to others."""

    def __init__(self, time: Time, trouble: Trouble, per_second: float) -> None:
        self._time = time
        self._trouble = trouble
        self._per_second = per_second
        self._taken: Counter[int] = Counter()
        self.requests: list[float] = []
        self.wasted = 0

    def answer(self, reply: Callable[[Reply], None]) -> None:
        now = self._time.now
        self.requests.append(now)
        if BEGINS_AT <= now < HEALS_AT:
            self.wasted += 1
            self._time.at(now + self._trouble.after, reply, self._trouble.reply)
        elif self._taken[int(now)] < self._per_second:
            self._taken[int(now)] += 1
            self._time.at(now + LATENCY, reply, Response(status=200))
        else:
            self.wasted += 1
            self._time.at(now + LATENCY, reply, Response(status=503))

    @property
    def during(self) -> int:
        """Requests while it was away."""
        return sum(BEGINS_AT <= at < HEALS_AT for at in self.requests)

    @property
    def peak(self) -> int:
        """Most requests in a second since it is back."""
        return max(Counter(int(at) for at in self.requests if at >= HEALS_AT).values())


@final
class Client:
    """A batcher without its loop: an intake and an engine. A batch is one event, to keep the story short."""

    def __init__(self, time: Time, server: Server, chance: random.Random) -> None:
        config = Config.of(api_key="hh_test", max_batch_events=1)
        self._time = time
        self._server = server
        self._intake = Intake(config.queue, config.batch)
        self._engine = Engine(
            self._intake,
            max_in_flight=config.endpoint.max_in_flight,
            retry=config.retry,
            jitter=chance.random,
        )
        self._wakes_at = float("inf")
        self.drained_at = float("inf")
        time.at(chance.random(), self._push)

    @property
    def statistics(self) -> Statistics:
        return self._intake.statistics()

    def _push(self) -> None:
        now = self._time.now
        self._intake.admit(Fragment(b"{}", ""), SESSIONLESS, now)
        self._time.at(now + 1.0, self._push)
        self._look()

    def _look(self) -> None:
        now = self._time.now
        for attempt in self._engine.poll(now):
            self._server.answer(lambda reply, attempt=attempt: self._take(attempt, reply))  # type: ignore[misc]  # a default is no annotation
        wake_at = self._engine.wake_at()
        if wake_at is not None and wake_at < self._wakes_at:
            self._wakes_at = wake_at
            self._time.at(wake_at, self._wake)

    def _wake(self) -> None:
        self._wakes_at = float("inf")
        self._look()

    def _take(self, attempt: Any, reply: Reply) -> None:
        self._engine.complete(attempt, reply, self._time.now)
        if self._time.now >= HEALS_AT and not self._intake.ledger.held_events:
            self.drained_at = min(self.drained_at, self._time.now)
        self._look()


@final
class Loop:
    """What is usually written by hand: one batch after another, and a second's sleep after a failure."""

    def __init__(self, time: Time, server: Server, chance: random.Random) -> None:
        self._time = time
        self._server = server
        self._queue: deque[float] = deque()
        self._is_busy = False
        time.at(chance.random(), self._push)

    def _push(self) -> None:
        self._queue.append(self._time.now)
        self._time.at(self._time.now + 1.0, self._push)
        if not self._is_busy:
            self._send()

    def _send(self) -> None:
        self._is_busy = True
        self._server.answer(self._take)

    def _take(self, reply: Reply) -> None:
        if reply != Response(status=200):
            self._time.at(self._time.now + 1.0, self._send)
            return
        self._queue.popleft()
        self._is_busy = False
        if self._queue:
            self._send()


class Outcome(Struct, frozen=True):
    """What became of one outage."""

    clients: int
    during: int
    wasted: int
    wasted_by_loops: int
    peak: int
    lost: int
    drained_after: float

    @property
    def share(self) -> float:
        """Requests during the outage, of the batches offered meanwhile."""
        return self.during / (self.clients * OUTAGE)

    @property
    def waste(self) -> float:
        """Requests in vain, of those that the loops made."""
        return self.wasted / self.wasted_by_loops

    @property
    def surge(self) -> float:
        """Most requests in a second after the outage, of the batches offered in a second."""
        return self.peak / self.clients


def live_through(trouble: Trouble, clients: int, seed: int = 1) -> Outcome:
    """Let a fleet and as many loops live through an outage."""
    time, chance = Time(), random.Random(seed)
    server = Server(time, trouble, CAPACITY * clients)
    fleet = [Client(time, server, chance) for _ in range(clients)]
    time.run(ENDS_AT)
    every = [client.statistics for client in fleet]
    lost = sum(each.offered - each.delivered - each.held for each in every)
    elsewhere, chance = Time(), random.Random(seed)
    usual = Server(elsewhere, trouble, CAPACITY * clients)
    _loops = [Loop(elsewhere, usual, chance) for _ in range(clients)]
    elsewhere.run(ENDS_AT)
    return Outcome(
        clients=clients,
        during=server.during,
        wasted=server.wasted,
        wasted_by_loops=usual.wasted,
        peak=server.peak,
        lost=lost,
        drained_after=max(client.drained_at for client in fleet) - HEALS_AT,
    )


def rows(size: Size) -> Iterator[Row]:
    """Live through every kind of outage; quickly through the two that differ most."""
    clients = 100 if size is Size.QUICK else 200
    troubles = (TROUBLES[0], TROUBLES[-1]) if size is Size.QUICK else TROUBLES
    for trouble in troubles:
        seen = live_through(trouble, clients)
        what = f"{clients} batchers, {OUTAGE:.0f} s of {trouble.name}"
        for name, value, bound, text in (
            ("requests meanwhile, of the batches offered", seen.share, 0.12, f"{seen.share:.1%}"),
            (
                "requests in vain, of those of loops that try every second",
                seen.waste,
                0.15,
                f"{seen.waste:.1%}",
            ),
            ("most requests in a second afterwards, of those offered", seen.surge, 2.0, f"{seen.surge:.2f}"),
            ("events lost", seen.lost, 0, f"{seen.lost}"),
            ("seconds until nothing waits", seen.drained_after, 200.0, f"{seen.drained_after:.0f} s"),
        ):
            yield Row(
                bar=13, what=f"{what}: {name}", figure=text, bound=f"at most {bound:g}", holds=value <= bound
            )
