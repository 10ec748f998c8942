"""How many requests an endpoint that works may have at once."""

import heapq
import itertools
import random
from collections.abc import Callable

import pytest

from honeyhive_batcher.core.concurrency import Concurrency


def reply(to: Concurrency, took: float = 0.05, *, size: int = 100, now: float = 100.0) -> None:
    """Reply to a request that was one of as many as may be."""
    to.replied(size=size, in_flight=to.limit, started_at=now - took, now=now)


def push_back(to: Concurrency, now: float) -> None:
    to.pushed_back(started_at=now - 0.05, now=now)


def grown(max_in_flight: int = 16) -> Concurrency:
    """One that has met nothing but success."""
    concurrency = Concurrency(max_in_flight)
    for _ in range(max_in_flight):
        reply(concurrency)
    assert concurrency.limit == max_in_flight
    return concurrency


class Traffic:
    """As many requests as may be, all the time, at a server that says how long each takes."""

    def __init__(self, took: Callable[[int, float], float], size: Callable[[], int] = lambda: 100) -> None:
        self.concurrency = Concurrency(16)
        self.limits: list[tuple[float, int]] = []
        self._took = took
        self._size = size
        self._under_way: list[tuple[float, int, float, int]] = []
        self._order = itertools.count()
        self._now = 0.0

    def run(self, until: float) -> list[int]:
        """Return the limits after each reply."""
        limits = []
        while self._now < until:
            while len(self._under_way) < self.concurrency.limit:
                size = self._size()
                ends_at = self._now + self._took(size, self._now) * self._load(len(self._under_way) + 1)
                heapq.heappush(self._under_way, (ends_at, next(self._order), self._now, size))
            in_flight = len(self._under_way)
            self._now, _, started_at, size = heapq.heappop(self._under_way)
            self.concurrency.replied(size=size, in_flight=in_flight, started_at=started_at, now=self._now)
            limits.append(self.concurrency.limit)
        return limits

    serves: float = 16.0

    def _load(self, under_way: int) -> float:
        return max(1.0, under_way / self.serves)


@pytest.mark.parametrize(("max_in_flight", "limit"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (16, 4)])
def test_it_begins_with_a_few_requests_at_once(max_in_flight: int, limit: int) -> None:
    assert Concurrency(max_in_flight).limit == limit


def test_every_reply_at_the_limit_makes_room_for_one_more_up_to_the_most() -> None:
    concurrency = Concurrency(8)
    limits = []
    for _ in range(6):
        reply(concurrency)
        limits.append(concurrency.limit)
    assert limits == [5, 6, 7, 8, 8, 8]


def test_a_reply_below_the_limit_makes_no_more_room() -> None:
    concurrency = Concurrency(16)
    for _ in range(10):
        concurrency.replied(size=100, in_flight=3, started_at=0.0, now=0.1)
    assert concurrency.limit == 4


def replies_until(concurrency: Concurrency, limit: int) -> int:
    """Return how many replies it takes to get there."""
    replies = 0
    while concurrency.limit < limit:
        reply(concurrency)
        replies += 1
    return replies


def test_a_push_back_takes_a_part_and_growth_is_slow_afterwards_and_slowest_to_where_it_was() -> None:
    concurrency = grown()
    push_back(concurrency, 10.0)
    assert concurrency.limit == 11
    assert replies_until(concurrency, 12) in (9, 10)  # one more for every round
    assert replies_until(concurrency, 15) < 3 * 16
    assert replies_until(concurrency, 16) > 15 * 15  # there it was too many, not long ago


def test_the_limit_never_falls_below_one() -> None:
    concurrency = grown()
    for now in range(20):
        push_back(concurrency, float(now))
    assert concurrency.limit == 1


def test_from_one_request_at_a_time_it_grows_at_the_first_success() -> None:
    concurrency = Concurrency(1)
    push_back(concurrency, 1.0)
    assert concurrency.limit == 1
    concurrency = Concurrency(16)
    for now in range(20):
        push_back(concurrency, float(now))
    reply(concurrency)
    assert concurrency.limit == 2


def test_push_backs_of_requests_that_were_under_way_together_count_as_one() -> None:
    concurrency = grown()
    push_back(concurrency, 10.0)
    for started_at in (9.0, 9.9, 10.0):
        concurrency.pushed_back(started_at=started_at, now=10.1)
    assert concurrency.limit == 11
    concurrency.pushed_back(started_at=10.01, now=10.2)
    assert concurrency.limit == 7


def test_a_constant_latency_leaves_all_room_whatever_it_is() -> None:
    for took in (0.001, 0.05, 10.0):
        traffic = Traffic(lambda *_, took=took: took)
        traffic.run(20.0 * took)
        assert set(traffic.run(500.0 * took)) == {16}, took


def test_a_latency_that_rises_with_the_requests_under_way_holds_them_down() -> None:
    traffic = Traffic(lambda *_: 0.1)
    traffic.serves = 5.0
    traffic.run(20.0)
    limits = traffic.run(600.0)
    assert sum(limit <= 7 for limit in limits) >= 0.9 * len(limits)  # below 1.5 times what is served
    assert max(limits) <= 12
    assert min(limits) >= 4
    assert sum(limits) / len(limits) >= 5.5


def test_a_latency_that_rises_a_lot_with_them_leaves_a_few() -> None:
    traffic = Traffic(lambda *_: 0.1)
    traffic.serves = 1.0
    traffic.run(20.0)
    limits = traffic.run(100.0)
    assert min(limits) == 4
    assert sum(limits) / len(limits) <= 7.0


@pytest.mark.parametrize("times", [1.4, 2.0, 10.0])
def test_a_latency_that_rises_by_itself_is_soon_the_usual_one(times: float) -> None:
    traffic = Traffic(lambda _, now: 0.1 if now < 60.0 else 0.1 * times)
    assert max(traffic.run(60.0)) == 16
    after = traffic.run(60.0 + 60.0 * times)
    assert min(after) == 4
    assert set(traffic.run(80.0 + 60.0 * times)) == {16}


def test_a_latency_that_falls_is_the_usual_one_before_long() -> None:
    traffic = Traffic(lambda _, now: 1.0 if now < 60.0 else 0.1 if now < 120.0 else 0.5)
    traffic.run(120.0)
    assert set(traffic.run(120.0)) <= {16}
    assert min(traffic.run(140.0)) < 16  # five times as long as it was


@pytest.mark.parametrize("spread", [0.3, 0.5])
def test_chance_is_no_slowness(spread: float) -> None:
    chance = random.Random(1)
    traffic = Traffic(lambda *_: 0.1 * chance.lognormvariate(0.0, spread))
    limits = traffic.run(100.0)
    assert sum(limits) / len(limits) >= 15.0


def test_a_few_milliseconds_are_no_slowness_nor_is_a_packet_that_was_lost() -> None:
    chance = random.Random(1)
    for took in (lambda *_: chance.choice((0.001, 0.005)), lambda *_: 0.1 if chance.random() < 0.99 else 3.0):
        limits = Traffic(took).run(10.0)
        assert set(limits[50:]) == {16}


def test_a_large_body_is_no_slowness() -> None:
    chance = random.Random(1)
    traffic = Traffic(lambda size, _: 0.05 + size / 8e6, lambda: chance.choice((2_000, 4_000_000)))
    assert set(traffic.run(300.0)[50:]) == {16}
    sizes = itertools.chain([2_000] * 500, itertools.repeat(4_000_000))
    traffic = Traffic(lambda size, _: 0.05 + size / 8e6, lambda: next(sizes))
    assert set(traffic.run(300.0)[50:]) == {16}


def test_slowness_alone_takes_nothing_from_few() -> None:
    concurrency = Concurrency(16)
    push_back(concurrency, 1.0)
    assert concurrency.limit == 2
    reply(concurrency)
    for _ in range(100):
        reply(concurrency, 10.0, now=100.0)
        assert concurrency.limit >= 2


# Rounds of 32 replies, in parts of the usual time: a tenth of a second, 0.01 of it slack.


def rounds(to: Concurrency, parts: float, *, now: float = 100.0, size: int = 100, replies: int = 32) -> None:
    for _ in range(replies):
        reply(to, parts * 0.1 - 0.01, size=size, now=now)


def at_work() -> Concurrency:
    """One that has room for 16 and begins a round at 100.0."""
    concurrency = Concurrency(16)
    rounds(concurrency, 1.0)
    assert concurrency.limit == 16
    return concurrency


@pytest.mark.parametrize(
    ("parts", "limit"),
    [(0.5, 16), (1.2, 16), (1.4, 16), (1.49, 16), (1.51, 14), (1.7, 14), (2.0, 12), (2.2, 11), (9.0, 11)],
)
def test_a_round_that_takes_half_as_long_again_takes_a_part_of_the_limit(parts: float, limit: int) -> None:
    concurrency = at_work()
    rounds(concurrency, parts, now=110.0)
    assert concurrency.limit == limit


@pytest.mark.parametrize(("replies", "limit"), [(31, 16), (32, 14), (33, 14)])
def test_a_round_is_over_with_its_32nd_reply(replies: int, limit: int) -> None:
    concurrency = at_work()
    rounds(concurrency, 1.6, now=110.0, replies=replies)
    assert concurrency.limit == limit


@pytest.mark.parametrize(("parts", "limit"), [(1.24, 16), (1.27, 14)])
def test_the_first_reply_is_the_usual_time_and_one_of_the_first_round(parts: float, limit: int) -> None:
    """The mean of all 32 is 1.23 or 1.26 then, where 1.25 is the most."""
    concurrency = Concurrency(16)
    rounds(concurrency, 1.0, replies=1)
    rounds(concurrency, parts, replies=31)
    assert concurrency.limit == limit


@pytest.mark.parametrize(("started_at", "limit"), [(99.9, 16), (100.0, 11), (100.1, 11)])
def test_a_reply_to_a_request_from_before_the_round_says_nothing(started_at: float, limit: int) -> None:
    concurrency = at_work()
    for _ in range(32):
        concurrency.replied(size=100, in_flight=16, started_at=started_at, now=110.0)
    assert concurrency.limit == limit


@pytest.mark.parametrize(("now", "limit"), [(129.9, 16), (130.0, 14), (130.1, 14)])
def test_the_usual_time_is_believed_for_half_a_minute_after_it_was_last_met(now: float, limit: int) -> None:
    concurrency = at_work()
    rounds(concurrency, 1.4, now=now)
    assert concurrency.limit == limit


@pytest.mark.parametrize(("parts", "limit"), [(1.45, 16), (1.55, 14)])
def test_the_usual_time_follows_a_shorter_one_by_a_tenth_of_the_way(parts: float, limit: int) -> None:
    concurrency = at_work()
    rounds(concurrency, 0.5, now=110.0)
    rounds(concurrency, parts * 0.95, now=120.0)
    assert concurrency.limit == limit


def test_a_kind_of_body_that_is_new_is_as_slow_as_the_round_before() -> None:
    concurrency = at_work()
    rounds(concurrency, 1.6, now=110.0)
    assert concurrency.limit == 14
    rounds(concurrency, 5.0, now=120.0, size=100_000)
    assert concurrency.limit == 12


def test_after_a_push_back_it_grows_although_the_round_before_was_slow() -> None:
    concurrency = at_work()
    rounds(concurrency, 1.6, now=110.0)
    push_back(concurrency, 120.0)
    assert concurrency.limit == 10
    assert replies_until(concurrency, 11) <= 11


def test_growth_is_slowest_from_one_below_where_it_was_pushed_back() -> None:
    """Slowness leaves just four, and five was too many: 72 replies instead of 5."""
    concurrency = Concurrency(16)
    rounds(concurrency, 1.0, replies=1)
    assert concurrency.limit == 5
    push_back(concurrency, 99.0)
    rounds(concurrency, 1.0, replies=2)
    rounds(concurrency, 1.7, replies=30)
    for now in (110.0, 120.0):
        rounds(concurrency, 1.7, now=now)
        assert concurrency.limit == 4
    assert replies_until(concurrency, 5) == 72


def test_among_a_few_requests_what_a_round_takes_is_the_usual_time() -> None:
    concurrency = Concurrency(16)
    push_back(concurrency, 99.0)
    rounds(concurrency, 1.0, replies=1)
    rounds(concurrency, 2.0, replies=31)
    assert concurrency.limit == 3
    rounds(concurrency, 2.0, now=110.0)
    assert concurrency.limit == 6
