"""Pushes from wherever Python code can run, with one batcher for one event loop after another.
Prints what is due, and what went wrong.

Usage: places.py EVENTS_OF_A_THREAD
"""

import asyncio
import gc
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable

import uvloop

from honeyhive_batcher import Batcher, BatcherError

delivery: list[asyncio.Event] = []
"""Set when something arrives; the one of the present loop is the last."""
batcher = Batcher.from_env(
    flush_interval=0.01, max_queue_events=1_000_000, on_delivered=lambda _: delivery[-1].set()
)
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def push(name: str) -> None:
    is_accepted = batcher.push({"model_name": name})
    # One call, which the other threads and this one's signal handler cannot split.
    os.write(1, f"due {name}\n".encode() if is_accepted else f"wrong {name}: refused\n".encode())


class Last:
    """Something that logs its end, in a cycle, so that the garbage collector ends it wherever it comes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.itself = self

    def __del__(self) -> None:
        push(self.name)


async def from_everywhere(kind: str, events: int) -> None:
    delivery.append(asyncio.Event())
    async with batcher:
        push(f"{kind} start")

        def push_many(thread: int) -> None:
            for number in range(events):
                push(f"{kind} thread {thread} {number}")

        threads = [threading.Thread(target=push_many, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for number in range(200):
            Last(f"{kind} end {number}")
            if number % 20 == 0:
                gc.collect()  # in the midst of what the threads push
        gc.collect()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await from_a_signal_handler(kind)


async def from_a_signal_handler(kind: str) -> None:
    """While the loop sleeps, and while it is busy pushing."""
    numbers = itertools.count()
    come: list[int] = []

    def handle(*_: object) -> None:
        number = next(numbers)  # before the push, which the next signal may interrupt
        come.append(number)
        push(f"{kind} signal {number}")

    previous = signal.signal(signal.SIGALRM, handle)
    assert await batcher.flush(timeout=30)
    delivery[-1].clear()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    async with asyncio.timeout(30):
        await delivery[-1].wait()  # nothing but the batcher's own waking rouses the loop meanwhile
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    number = 0
    while len(come) < 20:
        push(f"{kind} busy {number}")
        number += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def in_a_loop_that_dies(kind: str, factory: LoopFactory) -> None:
    """It is closed with the batcher running; the next run goes on with what was held."""
    loop = factory()

    async def begin() -> None:
        await batcher.start()
        push(f"{kind} before the death")
        await batcher.flush(timeout=30)

    loop.run_until_complete(begin())
    push(f"{kind} while it stands still")
    loop.close()
    push(f"{kind} after the death")
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(batcher.start())
        runner.run(go_on(kind))


async def go_on(kind: str) -> None:
    if not await batcher.flush(timeout=30):
        print(f"wrong {kind}: what was held is not delivered", flush=True)
    await batcher.aclose()


def from_another_thread(kind: str, factory: LoopFactory) -> None:
    """Its loop belongs to another thread, and stops while it is being closed from this one."""
    loop = factory()
    home = threading.Thread(target=loop.run_forever)
    home.start()
    asyncio.run_coroutine_threadsafe(batcher.start(), loop).result(30)
    try:
        asyncio.run(batcher.start())
        print(f"wrong {kind}: it runs in two loops", flush=True)
    except BatcherError:
        pass
    push(f"{kind} home")
    if not asyncio.run(batcher.flush(timeout=30)):
        print(f"wrong {kind}: not flushed from another loop", flush=True)
    loop.call_soon_threadsafe(loop.stop)
    asyncio.run(batcher.aclose(timeout=0.2))
    home.join()
    loop.close()


def main() -> None:
    for kind, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
        for run in range(2):
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(from_everywhere(f"{kind} {run}", int(sys.argv[1])))
        in_a_loop_that_dies(kind, factory)
        from_another_thread(kind, factory)
    numbers = batcher.statistics()
    if numbers.accepted != numbers.delivered or numbers.refused:
        print(f"wrong numbers: {numbers}", flush=True)


if __name__ == "__main__":
    main()
