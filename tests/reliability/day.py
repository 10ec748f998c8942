"""A day without the server, in virtual time: an engine without a loop, and a queue that is soon full.

Nothing that fits is lost: the drops are what does not fit, by the policy for it.
"""

import random
from collections.abc import Iterator

from msgspec import Struct

from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Reply
from tests.core.rig import UNSENT, Rig, Sent, answer, event
from tests.reliability.rows import Row, Size

DAY = 86_400.0
AFTERWARDS = 300.0
MAX_ATTEMPTS = 3_000
_LATENCY = 0.05


class Day(Struct, frozen=True):
    """What became of a day."""

    attempts: int
    """Requests while the server was away."""
    first_delivery_after: float
    offered_before: int
    """Events offered before the first was delivered."""
    capacity: int
    most_bytes: int
    max_bytes: int
    backoff_max: float
    statistics: Statistics

    @property
    def overflow(self) -> int:
        """Events that could not be kept, whichever they are."""
        return max(0, self.offered_before - self.capacity)


def live_through(trouble: Reply, overflow: str, *, per_second: int, max_bytes: int) -> Day:
    """Push for a day of trouble and some minutes of health."""
    size = len(event("00000000"))
    rig = Rig(jitter=random.Random(24).random, max_queue_bytes=max_bytes, overflow=overflow)
    rig.intake.ledger.keep_settlements = False
    seen = {"attempts": 0, "bytes": 0, "before": 0}
    healed: list[float] = []

    def server(sent: Sent) -> Reply:
        seen["bytes"] = max(seen["bytes"], rig.statistics.held_bytes)
        if rig.now < DAY:
            seen["attempts"] += 1
            rig.sent.clear()
            return trouble
        if not healed:
            healed.append(rig.now + _LATENCY)
        return sent.all_named

    pushes = (
        (number / per_second, f"{number:08}") for number in range(round(per_second * (DAY + AFTERWARDS)))
    )
    rig.serve(server, latency=_LATENCY, pushes=pushes, max_requests=10**9)
    return Day(
        attempts=seen["attempts"],
        first_delivery_after=healed[0] - DAY,
        offered_before=int(healed[0] * per_second) + 1,
        capacity=min(rig.config.queue.max_queue_events, max_bytes // size),
        most_bytes=seen["bytes"],
        max_bytes=max_bytes,
        backoff_max=rig.config.retry.backoff_max,
        statistics=rig.statistics,
    )


def rows(size: Size) -> Iterator[Row]:
    """Live through days of two kinds of trouble, each with the other policy."""
    quick = size is Size.QUICK
    per_second, max_bytes = (1, 40_000) if quick else (100, 50 * 1024 * 1024)
    for name, trouble, overflow in (
        ("refused connections", UNSENT, "drop_newest"),
        ("503", answer(503), "drop_oldest"),
    ):
        day = live_through(trouble, overflow, per_second=per_second, max_bytes=max_bytes)
        what = f"a day of {name} at {per_second} events/s, {overflow}"
        yield Row(
            bar=7,
            what=f"{what}: requests",
            figure=f"{day.attempts}",
            bound=f"at most {MAX_ATTEMPTS}",
            holds=day.attempts <= MAX_ATTEMPTS,
        )
        yield Row(
            bar=7,
            what=f"{what}: seconds from healing to the first delivery",
            figure=f"{day.first_delivery_after:.1f} s",
            bound=f"at most {day.backoff_max:g} s",
            holds=day.first_delivery_after <= day.backoff_max + _LATENCY,
        )
        numbers = day.statistics
        lost = {"refused": sum(numbers.refused.values()), "dropped": sum(numbers.dropped.values())}
        wanted = {"refused": 0, "dropped": 0}
        wanted["refused" if overflow == "drop_newest" else "dropped"] = day.overflow
        reasons = {*numbers.refused, *numbers.dropped}
        yield Row(
            bar=7,
            what=f"{what}: events lost",
            figure=f"{lost['refused']} refused, {lost['dropped']} dropped, {numbers.unconfirmed} unconfirmed",
            bound=f"{wanted['refused']} refused, {wanted['dropped']} dropped: what did not fit",
            holds=lost == wanted
            and reasons <= {"queue_full", "evicted"}
            and numbers.delivered == numbers.offered - day.overflow,
        )
        yield Row(
            bar=7,
            what=f"{what}: most bytes held",
            figure=f"{day.most_bytes}",
            bound=f"at most {day.max_bytes}",
            holds=day.most_bytes <= day.max_bytes,
        )
