"""What one `push` costs the caller, in nanoseconds and in encodes of the same event."""

import asyncio
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.data import encode_seconds, make_event
from benchmarks.sink import pin
from honeyhive_batcher import Batcher, ModelEvent

_PUSHES = 20_000


def _durations(push: Callable[[Any], object], events: list[Any]) -> list[int]:
    taken = []
    for event in events:
        began = time.perf_counter_ns()
        push(event)
        taken.append(time.perf_counter_ns() - began)
    return sorted(taken)


async def _measure(name: str, events: list[Any], **settings: Any) -> str:
    async with Batcher(
        test_mode=True, max_queue_events=settings.pop("max_queue_events", _PUSHES), **settings
    ) as batcher:
        unit = encode_seconds() * 1e9
        taken = _durations(batcher.push, events)
        numbers = batcher.statistics()
    median, p99 = statistics.median(taken), taken[int(len(taken) * 0.99)]
    kept = f"{numbers.accepted} of {numbers.offered}"
    return f"  {name:<34}{median:>8.0f} ns {median / unit:>6.2f}  {p99:>9.0f} ns {p99 / unit:>6.2f}   {kept}"


async def _main() -> None:
    logging.getLogger("honeyhive_batcher").setLevel(logging.ERROR)  # the full queue is no news here
    print(f"push, one call in the loop's thread, {_PUSHES} calls ('x' is times one encode of the event)")
    print(f"  {'':<34}{'median':>11} {'x':>6}  {'p99':>12} {'x':>6}   accepted")
    dicts = [make_event(number) for number in range(_PUSHES)]
    structs = [ModelEvent(**event) for event in dicts]
    named = [{**event, "event_id": f"event-{number}"} for number, event in enumerate(dicts)]
    print(await _measure("dict", dicts))
    print(await _measure("ModelEvent", structs))
    print(await _measure("dict with its own event_id", named))
    print(await _measure("dict, queue full", dicts, max_queue_events=1))


def main() -> None:
    """Print the table."""
    pin(0)
    asyncio.run(_main())


if __name__ == "__main__":
    main()
