"""Closing: on time whatever the server does, and whole whatever is cancelled, interrupted or ended."""

import asyncio
import contextlib
import importlib
import json
import logging
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from honeyhive_batcher import Batcher
from tests.fakes import HANG, FakeTransport, fates, make_batcher
from tests.reliability import peer, strikes
from tests.reliability.child import in_a_process
from tests.reliability.memory import event
from tests.reliability.rows import Row, Size
from tests.virtual_time import now, run_virtually

_RUNS = {Size.QUICK: (2, 1), Size.FULL: (40, 40)}
"""How many programs are interrupted once, and twice."""
_BATCH = 7
_DEADLINE = 20.0
"""Seconds after which an interrupted program is taken to hang."""


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Keep away what the log says about losses that are expected."""
    logger = logging.getLogger("honeyhive_batcher")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was_disabled


# On time.


def close_full(*, mood: peer.Mood, events: int) -> dict[str, Any]:
    """Close a batcher that holds so many events while the server hangs. In a process of its own."""
    logging.getLogger("honeyhive_batcher").setLevel(logging.CRITICAL)
    stall = 0.0

    async def probe() -> None:
        nonlocal stall
        while True:
            at = time.monotonic()
            await asyncio.sleep(0.001)
            stall = max(stall, time.monotonic() - at - 0.001)

    async def main(url: str) -> dict[str, Any]:
        nonlocal stall
        batcher = Batcher(
            api_key="hh_test", base_url=url, max_queue_events=2 * events, max_queue_bytes=1 << 30
        )
        await batcher.start()
        for number in range(events):
            batcher.push(event(number))
            if number % 100 == 0:
                await asyncio.sleep(0)
        probing = asyncio.create_task(probe())
        await asyncio.sleep(0.5)
        held = batcher.statistics().held
        stall = 0.0
        began = time.monotonic()
        await batcher.aclose(timeout=5)
        took = time.monotonic() - began
        probing.cancel()
        await asyncio.wait((probing,))
        left = len(asyncio.all_tasks()) - 1
        return {"took": took, "stall": stall, "was_held": held, "left": left, "fates": fates(batcher)}

    with peer.running(mood) as server:
        return asyncio.run(main(server.url))


def _on_time_in_full() -> Iterator[Row]:
    moods: tuple[peer.Mood, ...] = ("hang", "black hole", "trickle")
    for mood in moods:
        report = in_a_process(close_full, mood=mood, events=100_000)
        figures = report.value
        said = f"aclose(timeout=5), 100,000 events held, the server: {mood}"
        yield Row(
            bar=15,
            what=f"{said}: returns after (the loop stood still for {1000 * figures['stall']:.0f} ms)",
            figure=f"{figures['took']:.3f} s",
            bound="<= 5.25 s",
            holds=4.9 < figures["took"] <= 5.25 and figures["was_held"] == 100_000,
        )
        told = ", ".join(f"{events:,} {fate}" for fate, events in figures["fates"].items())
        yield Row(
            bar=15,
            what=f"{said}: every event has its fate, no task and no message is left",
            figure=f"{told}; {figures['left']} tasks, {len(report.stderr)} characters of stderr",
            bound="100,000; 0; 0",
            holds=sum(figures["fates"].values()) == 100_000
            and set(figures["fates"]) <= {"shutdown", "unconfirmed"}
            and not figures["left"]
            and not report.stderr,
        )


def _on_time_virtually() -> Iterator[Row]:
    events = 5_000

    async def main() -> tuple[float, dict[str, int]]:
        batcher = make_batcher(FakeTransport(otherwise=HANG), max_queue_events=events)
        await batcher.start()
        for number in range(events):
            batcher.push({"model": "gpt-4o", "number": number})
        await asyncio.sleep(1)
        began = now()
        await batcher.aclose(timeout=5)
        return now() - began, fates(batcher)

    with _muted():
        took, settled = run_virtually(main)
    yield Row(
        bar=15,
        what=f"aclose(timeout=5), {events:,} events held, the server hangs, in virtual time: returns after",
        figure=f"{took} s, {settled}",
        bound="5.0 s",
        holds=took == 5.0 and sum(settled.values()) == events and set(settled) == {"shutdown", "unconfirmed"},
    )


# Cancelled.

_STRIKES = {
    "the caller's task is cancelled": strikes.cancelled(caller=True, batcher=False),
    "the batcher's tasks are cancelled": strikes.cancelled(caller=False, batcher=True),
    "all tasks are cancelled": strikes.cancelled(caller=True, batcher=True),
    "a scope of anyio is cancelled": strikes.scope_cancelled,
    "an asyncio.timeout runs out": strikes.timed_out,
    "a sibling in the TaskGroup fails": strikes.sibling_failed,
    "asyncio.run ends": strikes.main_ended,
}
_STAGES = {"nothing sent", "connected", "sending the body", "waiting for the answer", "reading the answer"}


def _cancelled(size: Size) -> Iterator[Row]:
    patterns: dict[str, tuple[int, ...]] = {"once": (0,)}
    if size is Size.FULL:
        patterns |= {
            "and in the next": (0, 1),
            "and 5 later": (0, 5),
            "and in all after it": tuple(range(500)),
        }
    for name, strike in _STRIKES.items():
        for pattern, gaps in patterns.items():
            every, event_bytes = (1, 100_000) if size is Size.FULL else (9, 30_000)
            found = strikes.everywhere(strike, gaps=gaps, every=every, event_bytes=event_bytes)
            faults = found.wrong + found.said
            # A server in a loop of its own is at any stage when a turn begins, and passes some in between.
            is_apart = strike is strikes.main_ended
            met_all = len(found.stages) >= 3 if is_apart else set(found.stages) >= _STAGES
            settled = ", ".join(f"{events} {fate}" for fate, events in sorted(found.fates.items()))
            where = "every turn" if every == 1 else f"every {every}th turn"
            yield Row(
                bar=15,
                what=f"{name} in {where} of start, push, put, flush, aclose, {pattern}: events with a wrong "
                "fate or none, tasks and sockets left, messages",
                figure="; ".join((f"{len(faults)} in {found.runs} runs ({settled})", *faults[:2])),
                bound="0",
                holds=not faults and found.runs > 5 and (size is Size.QUICK or met_all),
            )


# Interrupted.


def interrupted(*, url: str) -> dict[str, Any]:
    """Use a batcher, again and again, until Ctrl-C comes. In a process of its own."""
    logging.getLogger("honeyhive_batcher").setLevel(logging.ERROR)  # that it tries again is no failure
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    importlib.import_module("aiohttp")  # else most interrupts would come while it is being imported
    accepted: list[str] = []
    delivered: list[str] = []

    async def main() -> None:
        number = 0
        print("ready", flush=True)
        while True:
            async with batcher:
                for _ in range(60):
                    one = event(number)
                    if batcher.push(one):
                        accepted.append(one["event_id"])
                    number += 1
                    await asyncio.sleep(0.0005)
                await batcher.flush()

    batcher = Batcher(
        api_key="hh_test",
        base_url=url,
        max_batch_events=_BATCH,
        flush_interval=0.002,
        on_delivered=delivered.extend,
    )
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the batcher is closed, and the rest is about the test
        was_interrupted = True
    else:
        was_interrupted = False
    numbers = batcher.statistics()
    return {
        "was_interrupted": was_interrupted,
        "accepted": len(accepted),
        # An event may be accepted just before the interrupt, and the program not told.
        "exact": set(accepted) <= set(delivered)
        and len(delivered) == len(set(delivered)) == numbers.accepted == numbers.delivered,
        "settled": numbers.held == 0 and numbers.accepted == numbers.delivered + numbers.unconfirmed,
        "unconfirmed": numbers.unconfirmed,
    }


def _interrupt(url: str, delays: tuple[float, ...]) -> tuple[dict[str, Any], str]:
    """Run that program, and interrupt it so many seconds after it is ready, and after each other."""
    program = (
        "import json, sys; from tests.reliability.shutdown import interrupted; "
        "print(json.dumps(interrupted(url=sys.argv[1])))"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, url],
        cwd=peer.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for delay in delays:
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_DEADLINE)
    finally:
        process.kill()
        process.wait()
    return json.loads(out or "{}"), err


def _interrupted(size: Size) -> Iterator[Row]:
    seed = 15
    chance = random.Random(seed)

    def once() -> tuple[float, ...]:
        return (chance.uniform(0, 0.3),)

    def twice() -> tuple[float, ...]:
        return (chance.uniform(0, 0.3), chance.uniform(0, 0.02))

    with peer.running("take") as server:
        for what, delays, runs in (("Ctrl-C", once, _RUNS[size][0]), ("Ctrl-C twice", twice, _RUNS[size][1])):
            said = [_interrupt(server.url, delays()) for _ in range(runs)]
            # The second strikes wherever Python is: amid a batch, whose events are unconfirmed then, and in
            # tasks of aiohttp, which say so themselves.
            may_say_so = what == "Ctrl-C twice"
            bad = [
                (value, err)
                for value, err in said
                if not value.get("was_interrupted")
                or not (
                    value["exact"] or (may_say_so and value["settled"] and value["unconfirmed"] <= _BATCH)
                )
                or (err and not may_say_so)
            ]
            events = sum(value.get("accepted", 0) for value, _ in said)
            unconfirmed = sum(value.get("unconfirmed", 0) for value, _ in said)
            but = "but for what is unconfirmed of one batch" if may_say_so else "said anything"
            yield Row(
                bar=15,
                what=f"{what} at a random time under asyncio.run (seed {seed}), {runs} programs, "
                f"{events:,} events: programs that lost an event, {but}, or hung",
                figure="; ".join(
                    (f"{len(bad)} ({unconfirmed} unconfirmed)", *(repr(each)[:300] for each in bad[:1]))
                ),
                bound="0",
                holds=not bad and events > 0,
            )


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of the shutdown bar."""
    yield from _on_time_virtually()
    if size is Size.FULL:
        yield from _on_time_in_full()
    yield from _cancelled(size)
    yield from _interrupted(size)
