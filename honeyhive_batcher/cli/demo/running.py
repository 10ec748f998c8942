"""One demo: a collector, a batcher, a service between them, and their bounded end."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Final

from honeyhive_batcher.batcher import Batcher
from honeyhive_batcher.cli.demo.calls import Caller
from honeyhive_batcher.cli.demo.result import arrived, complaint, equations, queries, sizes, triggers, verdict
from honeyhive_batcher.cli.demo.service import ChatService
from honeyhive_batcher.cli.screen import Screen, tell, tell_table
from honeyhive_batcher.cli.signals import exit_code, signals_caught
from honeyhive_batcher.collector import Collector, Faults
from honeyhive_batcher.core.ledger import Statistics

_MAX_BATCH_EVENTS: Final = 50
_FLUSH_INTERVAL: Final = 0.25
"""Seconds; below the default, so that much happens in a short time."""
_FLUSH_TIMEOUT: Final = 7.0
"""Seconds that delivering the rest may take after the service has stopped."""
_PATIENCE: Final = 2.0
"""Seconds beyond the collector's latency that a request may take; a `--hang` is then tried again."""
_LOOK_INTERVAL: Final = 0.1


async def run_demo(screen: Screen, *, db: Path, faults: Faults, seed: int, seconds: float) -> int:
    """Run the demo, print what became of it, and return the exit code.

    Raises:
        ConfigError: `db` cannot be used.
    """
    stop = asyncio.Event()
    signals: list[int] = []
    delivered: list[str] = []
    async with Collector(db=db, faults=faults, seed=seed) as hive:
        batcher = Batcher(
            **hive.settings(),
            project="demo",
            source="honeyhive-batcher demo",
            max_batch_events=_MAX_BATCH_EVENTS,
            flush_interval=_FLUSH_INTERVAL,
            request_timeout=faults.latency + faults.latency_jitter + _PATIENCE,
            shutdown_timeout=1.0,
            # A demo has seconds where a program has minutes: it retries sooner, and until it ends.
            backoff_base=0.1,
            backoff_max=1.0,
            max_retries=1000,
            on_delivered=delivered.extend,
        )

        def on_signal(number: int) -> None:
            signals.append(number)
            stop.set()

        with signals_caught(on_signal):
            screen.say(f"A chat service runs for {seconds:g} s and logs to a local HoneyHive at {hive.url}")
            service = ChatService(batcher, Caller(seed))
            async with batcher:
                await _serve(service, batcher, screen, seconds, stop)
                screen.say("The service has stopped; what is queued is delivered")
                await _flush(batcher, signals)
        found = arrived(hive, delivered, service.sessions)
        requests = hive.requests()
    screen.close()
    statistics = batcher.statistics()
    tell("", *equations(statistics), verdict(statistics, found), "")
    tell_table(
        "Requests by size",
        ("events", "requests", "events sent", "answered 200"),
        sizes(requests, _MAX_BATCH_EVENTS),
    )
    tell("")
    tell_table(
        "Requests by what caused them",
        ("cause", "requests"),
        triggers(statistics, max_events=_MAX_BATCH_EVENTS, interval=_FLUSH_INTERVAL),
    )
    tell("", f"Everything is in {db}; look into it with either of", *queries(db))
    lost = complaint(statistics, found)
    if lost is not None:
        screen.say(f"honeyhive-batcher demo: {lost}")
    if signals:
        return exit_code(signals[0])
    return 0 if lost is None else 1


async def _serve(
    service: ChatService, batcher: Batcher, screen: Screen, seconds: float, stop: asyncio.Event
) -> None:
    """Run the service until the time is over or `stop` is set, and show how it goes."""
    serving = asyncio.create_task(service.run())
    stopped = asyncio.create_task(stop.wait())
    began_at = time.monotonic()
    try:
        while (elapsed := time.monotonic() - began_at) < seconds:
            screen.show(_text(batcher.statistics()), elapsed / seconds)
            wait = min(_LOOK_INTERVAL, seconds - elapsed)
            if (await asyncio.wait((serving, stopped), timeout=wait, return_when=asyncio.FIRST_COMPLETED))[0]:
                break
    finally:
        stopped.cancel()
        serving.cancel()
        await asyncio.wait((serving,))
    with contextlib.suppress(asyncio.CancelledError):
        serving.result()  # a bug in the service must not pass for a good end


def _text(statistics: Statistics) -> str:
    trouble = f"  last error: {statistics.last_error}" if statistics.last_error else ""
    return (
        f"{statistics.offered:,} logged  {statistics.delivered:,} delivered  {statistics.held:,} held  "
        f"{statistics.requests:,} requests  {statistics.retries:,} sent again{trouble}"
    )


async def _flush(batcher: Batcher, signals: list[int]) -> None:
    """Deliver what is left, within bounds; a further signal ends the wait."""
    flushing = asyncio.create_task(batcher.flush(_FLUSH_TIMEOUT))
    known = len(signals)
    while not flushing.done() and len(signals) == known:
        await asyncio.wait((flushing,), timeout=_LOOK_INTERVAL)
    flushing.cancel()
    await asyncio.wait((flushing,))
    if len(signals) > known:
        await batcher.aclose(0)
