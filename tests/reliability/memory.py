"""Memory: what a server that never answers may cost, and that nothing stays behind of a million events."""

import asyncio
import gc
import logging
import statistics
import threading
import time
from array import array
from collections.abc import Iterator
from typing import Any, Literal

from honeyhive_batcher import Batcher
from tests.reliability import peer
from tests.reliability.child import MiB, descriptors, in_a_process, in_use, resident, resident_trimmed
from tests.reliability.rows import Row, Size

Overflow = Literal["drop_newest", "drop_oldest"]

EVENT_BYTES = 2048
_EVERY = 0.02
"""Seconds between two rounds of pushes. The first push after a pause finds cold caches and takes many times
as long as the others: of a hundred it would just be the one that a p99 leaves out, or not.
"""


def event(number: int) -> dict[str, Any]:
    """Return an event of about 2 KB, whose id is its number."""
    return {"model": "gpt-4o", "event_id": f"{number:032}", "inputs": {"text": "x" * (EVENT_BYTES - 100)}}


# What a server that never answers may cost.

_REFUSED, _ACCEPTED, _DELIVERED, _DROPPED, _UNCONFIRMED = range(1, 6)


class _Fates:
    """One byte for each event, so that keeping the books costs next to no memory."""

    def __init__(self, events: int) -> None:
        self.of = bytearray(events)
        self.wrong = 0

    def meets(self, ids: tuple[str, ...], fate: int) -> None:
        for name in ids:
            number = int(name)
            self.wrong += self.of[number] != _ACCEPTED  # not accepted, or it has one already
            self.of[number] = fate


def flood(
    *,
    events: int,
    rate: int,
    overflow: Overflow,
    bound: int,
    request_timeout: float,
    rest: float,
    is_watched: bool,
) -> dict[str, Any]:
    """Push `rate` events a second at a black hole, and let it become a server; fill the queue once more in
    the same way. In a process of its own.
    """
    logging.getLogger("honeyhive_batcher").setLevel(logging.CRITICAL)  # what is lost is counted here
    again = bound // EVENT_BYTES * 3 // 2
    warm_up = min(2_000, events // 10)
    fates = _Fates(warm_up + events + again)
    callbacks: dict[str, Any] = {}
    if is_watched:
        callbacks = {
            "on_delivered": lambda ids: fates.meets(ids, _DELIVERED),
            "on_dropped": lambda ids, _reason: fates.meets(ids, _DROPPED),
            "on_unconfirmed": lambda ids: fates.meets(ids, _UNCONFIRMED),
        }
    # Made before anything is measured, and no objects: those would keep parts of the heap from being freed.
    taken = array("q", bytes(8 * (len(fates.of) // 64 + 1)))

    async def main(server: peer.Peer) -> dict[str, Any]:
        batcher = Batcher(
            api_key="hh_test",
            base_url=server.url,
            max_queue_events=1_000_000,
            max_queue_bytes=bound,
            overflow=overflow,
            request_timeout=request_timeout,
            **callbacks,
        )
        async with batcher:
            for number in range(warm_up):
                fates.of[number] = _ACCEPTED if batcher.push(event(number)) else _REFUSED
                if number % 200 == 0:
                    await batcher.flush()
            await batcher.flush()
            gc.collect()
            base, used = resident_trimmed(), in_use()
            server.become("black hole")
            peak = await push(batcher, warm_up, events)
            held = batcher.statistics().held
            await drain(batcher, server)
            await asyncio.sleep(rest)  # connections that stood idle go
            gc.collect()
            after, used_after = resident(), in_use()
            after_trimmed = resident_trimmed()
            server.become("black hole")
            peak_again = await push(batcher, warm_up + events, again)
            await drain(batcher, server)
        numbers = batcher.statistics()
        told = [fates.of.count(fate) for fate in (_REFUSED, _ACCEPTED, _DELIVERED, _DROPPED, _UNCONFIRMED)]
        return {
            "base": base,
            "growth": peak - base,
            "growth_again": peak_again - base,
            "after": after,
            "after_trimmed": after_trimmed,
            "used": used,
            "used_after": used_after,
            "held": held,
            "permille": statistics.quantiles([each for each in taken if each], n=1000),
            "pushed": len(fates.of),
            "offered": numbers.offered,
            "accepted": numbers.accepted,
            "refused": sum(numbers.refused.values()),
            "delivered": numbers.delivered,
            "dropped": sum(numbers.dropped.values()),
            "unconfirmed": numbers.unconfirmed,
            "left": numbers.held,
            "told": told,
            "wrong": fates.wrong,
            "callback_errors": numbers.callback_errors,
            "stored": server.count().distinct,
        }

    async def push(batcher: Batcher, first: int, count: int) -> int:
        began, number, peak = time.monotonic(), first, 0
        while number < first + count:
            await asyncio.sleep(_EVERY)
            due = first + min(count, int((time.monotonic() - began) * rate))
            for each in range(number, due):
                one = event(each)
                at = time.thread_time_ns()  # of other programs it does not tell
                admission = batcher.push(one)
                if each % 64 == 0:
                    taken[each // 64] = time.thread_time_ns() - at
                # An event may have been evicted by now, but the callback is told in another turn of the loop.
                fates.of[each] = _ACCEPTED if admission else _REFUSED
            number = due
            peak = max(peak, resident())
        return peak

    async def drain(batcher: Batcher, server: peer.Peer) -> None:
        server.become("take")
        await batcher.flush(timeout=300)
        gc.collect()

    with peer.running("take") as server:
        return asyncio.run(main(server))


def _mib(size: float) -> str:
    return f"{size / MiB:.1f} MiB"


def _flood_rows(size: Size, overflow: Overflow, *, is_watched: bool) -> Iterator[Row]:
    full = size is Size.FULL
    bound = (64 if full else 16) * MiB
    seconds, rate = (60, 10_000) if full else (1.0, 20_000)
    report = in_a_process(
        flood,
        events=int(seconds * rate),
        rate=rate,
        overflow=overflow,
        bound=bound,
        request_timeout=30.0 if full else 0.5,
        rest=10.0 if full else 0.0,
        is_watched=is_watched,
    )
    figures = report.value
    pushed = figures["pushed"]
    name = f"{overflow}, {'all' if is_watched else 'no'} callbacks"
    said = f"{seconds} s of {rate:,} events/s x 2 KB into a black hole, bound {_mib(bound)}, {name}"
    was_full = figures["held"] * EVENT_BYTES > 0.8 * bound
    yield Row(
        bar=8,
        what=f"{said}: growth of resident memory",
        figure=_mib(figures["growth"]),
        bound=f"<= {_mib(1.5 * bound)}",
        holds=figures["growth"] <= 1.5 * bound and was_full,
    )
    accepted, refused = figures["accepted"], figures["refused"]
    settled = figures["delivered"] + figures["dropped"] + figures["unconfirmed"]
    lost = refused if overflow == "drop_newest" else figures["dropped"]
    adds_up = (
        figures["offered"] == pushed == accepted + refused
        and accepted == settled
        and figures["left"] == 0
        and lost > 0
        and figures["delivered"] <= figures["stored"] <= figures["delivered"] + figures["unconfirmed"]
    )
    if is_watched:
        told = [refused, 0, figures["delivered"], figures["dropped"], figures["unconfirmed"]]
        adds_up = adds_up and figures["told"] == told and figures["wrong"] == figures["callback_errors"] == 0
    else:
        adds_up = adds_up and figures["told"][:2] == [refused, accepted]
    yield Row(
        bar=8,
        what=f"{said}: every event has one fate, by count{' and by id' if is_watched else ''}",
        figure=f"{pushed:,} = {figures['delivered']:,} delivered + {refused:,} refused + "
        f"{figures['dropped']:,} dropped + {figures['unconfirmed']:,} unconfirmed",
        bound="exact",
        holds=adds_up,
    )
    used, used_after = figures["used"], figures["used_after"]
    yield Row(
        bar=8,
        what=f"{said}: memory in use after the drain, and before",
        figure=f"{_mib(used_after['malloc'])} of malloc and {used_after['blocks']:,} small blocks; "
        f"{_mib(used['malloc'])} and {used['blocks']:,}",
        bound="+-10 %",
        holds=all(abs(used_after[kind] - used[kind]) <= 0.1 * used[kind] for kind in used),
    )
    yield Row(
        bar=8,
        what=f"{said}: resident memory after the drain, and before (glibc keeps what was freed, "
        f"{_mib(figures['after'] - figures['after_trimmed'])}, for reuse, until `malloc_trim` asks it back)",
        figure=f"{_mib(figures['after_trimmed'])}; {_mib(figures['base'])}",
        bound="+-10 %",
        holds=abs(figures["after_trimmed"] - figures["base"]) <= 0.1 * figures["base"],
    )
    yield Row(
        bar=8,
        what=f"{said}: growth of resident memory when the queue fills once more",
        figure=_mib(figures["growth_again"]),
        bound=f"<= {_mib(1.1 * figures['growth'])}",
        holds=figures["growth_again"] <= 1.1 * figures["growth"],
    )
    if full:
        yield Row(
            bar=8,
            what=f"{said}: 99 of 100 pushes take less CPU time than (and 999 of 1,000)",
            figure=f"{figures['permille'][989] / 1000:.0f} µs ({figures['permille'][998] / 1000:.0f} µs)",
            bound="<= 50 µs",
            holds=figures["permille"][989] <= 50_000,
        )


# That nothing stays behind.


def many(*, events: int) -> dict[str, Any]:
    """Send many events to a server that takes them. In a process of its own."""

    async def main(server: peer.Peer) -> dict[str, Any]:
        looks: list[dict[str, int]] = []
        batcher = Batcher(api_key="hh_test", base_url=server.url)
        # The most that can wait, at once: the room it takes is kept for reuse, whenever that comes to be.
        filling = min(events // 2, batcher.config.queue.max_queue_events)
        for number in range(filling):
            batcher.push(event(number))
        async with batcher:
            for number in range(filling, events):
                await batcher.put(event(number))
                if (number + 1) % (events // 20) == 0:
                    await batcher.flush()
                    looks.append(_look())
        numbers = batcher.statistics()
        counts = server.count()
        return {
            "looks": looks[-10:],
            "every": events // 20,
            "exact": numbers.delivered == events == counts.distinct == counts.events,
        }

    with peer.running("take") as server:
        return asyncio.run(main(server))


def _look() -> dict[str, int]:
    gc.collect()
    return {
        "descriptors": descriptors(),
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "objects": len(gc.get_objects()),
        "resident": resident(),
    }


def _many_rows(size: Size) -> Iterator[Row]:
    events = 1_000_000 if size is Size.FULL else 10_000
    figures = in_a_process(many, events=events).value
    looks: list[dict[str, int]] = figures["looks"]
    said = f"{events:,} events to a server that takes them"
    yield Row(
        bar=8,
        what=f"{said}: all delivered, each once",
        figure="yes" if figures["exact"] else "no",
        bound="yes",
        holds=figures["exact"],
    )
    # Sockets that the pool opens or closes between two looks, and what such a one is made of.
    for kind, slack in (("descriptors", 16), ("tasks", 0), ("threads", 0), ("objects", 1_000)):
        seen = [look[kind] for look in looks]
        yield Row(
            bar=8,
            what=f"{said}: growth in the second half, {kind}",
            figure=f"{seen[-1] - seen[0]:+} of {seen[0]:,}",
            bound=f"<= {slack}",
            holds=seen[-1] - seen[0] <= slack,
        )
    slope = statistics.linear_regression(
        [index * figures["every"] for index in range(len(looks))], [look["resident"] for look in looks]
    ).slope
    bound = 1 if size is Size.FULL else 100  # a page more or less is a lot, over few events
    yield Row(
        bar=8,
        what=f"{said}: slope of resident memory in the second half",
        figure=f"{slope:.2f} bytes an event",
        bound=f"<= {bound}",
        holds=slope <= bound,
    )


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of the memory bar."""
    for overflow in ("drop_newest", "drop_oldest"):
        for is_watched in (False, True) if size is Size.FULL else (True,):
            yield from _flood_rows(size, overflow, is_watched=is_watched)
    yield from _many_rows(size)
