"""A day of a wrong setting, in hand-driven time. What an outage comes to is in `tests/reliability`."""

import random
from dataclasses import dataclass

from honeyhive_batcher.core.model import Reply
from tests.core.rig import Rig, Sent, answer

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


def test_a_day_of_401_costs_a_request_a_minute_and_none_of_what_was_accepted() -> None:
    day = live_through(answer(401), "drop_newest")
    statistics = day.rig.statistics
    assert len(day.during) <= DAY / 60 + 1
    assert day.after[0].at <= DAY + 60.1
    assert statistics.dropped == {}
    assert day.survivors == list(range(500))
    # Everything between is refused, until the probe that found the server healed was answered.
    assert statistics.refused["queue_full"] >= RATE * DAY - 500
