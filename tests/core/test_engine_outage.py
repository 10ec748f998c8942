"""A day without the server, and fifty clients that all wait for one server; in hand-driven time."""

import heapq
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from honeyhive_batcher.core.model import Attempt, Reply
from tests.core.rig import UNSENT, Rig, Sent, answer

DAY = 86_400
RATE = 2
OFFERED = RATE * (DAY + 300)


@dataclass
class Day:
    """What a day without the server, and five minutes with it, came to."""

    rig: Rig
    during: list[Sent]
    after: list[Sent]
    survivors: list[int]
    """Numbers of the events of that day that were delivered after it, in the order of pushing."""


def live_through(trouble: Reply, overflow: str) -> Day:
    """Push two events a second for a day of trouble and five minutes of health.

    There is room for 500 of them, in number and, at 28 bytes each, in bytes.
    """
    rig = Rig(
        jitter=random.Random(24).random, max_queue_events=500, max_queue_bytes=14_000, overflow=overflow
    )
    rig.intake.ledger.keep_settlements = False  # many fates; the sums do

    def server(sent: Sent) -> Reply:
        assert rig.statistics.held <= 500
        assert rig.statistics.held_bytes <= 14_000
        return trouble if rig.now < DAY else sent.all_named

    pushes = ((number / RATE, f"{number:06}") for number in range(OFFERED))
    rig.serve(server, latency=0.05, pushes=pushes)
    during = [sent for sent in rig.sent if sent.at < DAY]
    after = [sent for sent in rig.sent if sent.at >= DAY]
    survivors = sorted(int(name) for sent in after for name in sent.ids if int(name) < RATE * DAY)
    statistics = rig.statistics
    assert statistics.offered == OFFERED
    assert statistics.held == statistics.unconfirmed == 0
    assert statistics.delivered == sum(len(sent.ids) for sent in after)
    assert statistics.accepted == statistics.delivered + sum(statistics.dropped.values())
    assert statistics.offered == statistics.accepted + sum(statistics.refused.values())
    assert len(survivors) == len(set(survivors))
    return Day(rig, during, after, survivors)


def test_a_day_of_refused_connections_keeps_the_oldest_and_counts_every_loss() -> None:
    day = live_through(UNSENT, "drop_newest")
    statistics = day.rig.statistics
    assert len(day.during) < 6000  # one in 15 seconds: half the longest back-off
    assert set(statistics.refused) == {"queue_full"}
    assert set(statistics.dropped) == {"retries_exhausted"}
    # What was given up was tried for 120 seconds at least, one batch of at most 100 after another.
    assert statistics.dropped["retries_exhausted"] <= 100 * (DAY / 120 + 1) * 1.2
    assert day.after[0].at <= DAY + 30.0
    assert 400 <= len(day.survivors) <= 500
    # All that was accepted by day was given up or has survived it.
    late = sum(int(name) >= RATE * DAY for sent in day.after for name in sent.ids)
    assert statistics.delivered == len(day.survivors) + late


def test_a_day_of_503_keeps_the_newest_and_counts_every_loss() -> None:
    day = live_through(answer(503), "drop_oldest")
    statistics = day.rig.statistics
    assert len(day.during) < 6000
    assert statistics.refused == {}
    assert set(statistics.dropped) == {"retries_exhausted", "evicted"}
    assert day.after[0].at <= DAY + 30.0
    # One batch of 100 was under way or backing off, and is older; the server was found healed a
    # little later, when some more had been evicted.
    assert 350 <= len(day.survivors) <= 500
    assert day.survivors[-350:] == list(range(RATE * DAY - 350, RATE * DAY))


def test_a_day_of_401_costs_a_request_a_minute_and_none_of_what_was_accepted() -> None:
    day = live_through(answer(401), "drop_newest")
    statistics = day.rig.statistics
    assert len(day.during) <= DAY / 60 + 1
    assert day.after[0].at <= DAY + 60.1
    assert statistics.dropped == {}
    assert day.survivors == list(range(500))
    # Everything between is refused, until the probe that found the server healed was answered.
    assert statistics.refused["queue_full"] >= RATE * DAY - 500


# Fifty clients.

ENGINES = 50
DOWN_AT, UP_AT = 10.0, 70.0


@dataclass
class Storm:
    """One server for fifty engines, each with a batch a second."""

    trouble: Reply
    per_second: float = 1.0
    capacity: int = 10**9
    """Requests that the server takes in a second; more are answered 503."""
    rigs: list[Rig] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    offered: list[float] = field(default_factory=list)

    def run(self) -> "Storm":
        chance = random.Random(50)
        self.rigs = [Rig(jitter=chance.random, max_batch_events=10) for _ in range(ENGINES)]
        order = itertools.count()
        agenda: list[tuple[float, int, int, tuple[Attempt, Reply] | str]] = []
        for index in range(ENGINES):
            heapq.heappush(agenda, (chance.random(), next(order), index, "push"))
        taken: Counter[int] = Counter()
        while agenda:
            now, _, index, what = heapq.heappop(agenda)
            rig = self.rigs[index]
            rig.now = now
            if isinstance(what, tuple):
                rig.reply(*what)
            elif what == "push" and now < 110.0:
                self.offered.append(now)
                rig.push(*[f"{next(order)}" for _ in range(10)])
                heapq.heappush(agenda, (now + 1.0 / self.per_second, next(order), index, "push"))
            for attempt in rig.poll():
                self.requests.append(now)
                second = int(now)
                taken[second] += not self.is_down(now)
                reply = self.trouble
                if not self.is_down(now):
                    reply = answer(200 if taken[second] <= self.capacity else 503)
                heapq.heappush(agenda, (now + 0.02, next(order), index, (attempt, reply)))
            wake_at = rig.engine.wake_at()
            if wake_at is not None:
                heapq.heappush(agenda, (max(now, wake_at), next(order), index, "wake"))
        return self

    @staticmethod
    def is_down(now: float) -> bool:
        return DOWN_AT <= now < UP_AT

    @property
    def share(self) -> float:
        """Requests during the outage, of the batches offered meanwhile."""
        return sum(map(self.is_down, self.requests)) / sum(map(self.is_down, self.offered))

    @property
    def peak(self) -> int:
        """Most requests in one second after the outage."""
        return max(Counter(int(at) for at in self.requests if at >= UP_AT).values())


@pytest.fixture(scope="module")
def storm() -> Storm:
    return Storm(UNSENT).run()


def test_a_minute_of_refused_connections_costs_no_client_an_event(storm: Storm) -> None:
    for rig in storm.rigs:
        assert rig.statistics.delivered == rig.statistics.accepted == rig.statistics.offered
        rig.assert_settled()


def test_an_outage_costs_a_client_a_dozen_requests_whatever_waits(storm: Storm) -> None:
    assert storm.share <= 0.18
    assert Storm(UNSENT, per_second=2.0).run().share <= 0.09  # twice the batches, no more requests


def test_all_clients_deliver_again_within_the_longest_back_off(storm: Storm) -> None:
    for rig in storm.rigs:
        assert min(sent.at for sent in rig.sent if sent.at >= UP_AT) <= UP_AT + 30.0
