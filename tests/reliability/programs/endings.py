"""Ends in every way in which a program may end with events held, each in a forked child that ends as Python
programs do. Prints what each wrote on its stderr, and what is due.
"""

import asyncio
import atexit
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable

import aiohttp  # noqa: F401 - once here, not in every child

from honeyhive_batcher import Admission, Batcher

keep: list[object] = []


def make(name: str, *, events: int = 0) -> Batcher:
    batcher = Batcher.from_env(flush_interval=60, shutdown_timeout=10)
    for number in range(events):
        batcher.push({"model_name": f"{name} {number}"})
    return batcher


def never_started() -> None:
    keep.append(make("never", events=3))


def forgotten_before_the_start() -> None:
    make("never", events=3)


async def start(name: str) -> Batcher:
    """Start one that has an open connection, and three events to come."""
    batcher = await make(name, events=1).start()
    print(f"due {name} 0")
    await batcher.flush(timeout=30)
    for number in range(3):
        batcher.push({"model_name": f"{name} more {number}"})
    return batcher


def closed_loop() -> None:
    loop = asyncio.new_event_loop()
    keep.append(loop.run_until_complete(start("closed loop")))
    loop.close()


def closed_loop_and_forgotten() -> None:
    loop = asyncio.new_event_loop()
    batcher = loop.run_until_complete(start("closed loop and forgotten"))
    loop.close()
    del batcher, loop
    gc.collect()


def closed_loop_with_a_request_under_way() -> None:
    async def begin(url: str) -> None:
        batcher = await Batcher(base_url=url, api_key="hh_test", flush_interval=0).start()
        batcher.push({"model_name": "never answered"})
        await asyncio.to_thread(server.accept)

    with socket.create_server(("127.0.0.1", 0)) as server:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin(f"http://127.0.0.1:{server.getsockname()[1]}"))
        loop.close()
        gc.collect()


def loop_that_stands_still() -> None:
    loop = asyncio.new_event_loop()
    keep.extend((loop, loop.run_until_complete(start("standing still"))))


def loop_that_stands_still_and_forgotten() -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(start("standing still and forgotten"))
    keep.append(loop)


def daemon_thread() -> None:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    keep.append(asyncio.run_coroutine_threadsafe(start("daemon"), loop).result(30))
    for number in range(3):
        print(f"due daemon more {number}")


def pushed_at_exit() -> None:
    """After the loop was closed, and as late as Python code runs."""
    batcher = make("at exit")

    async def run() -> None:
        async with batcher:
            batcher.push({"model_name": "at exit in time"})
            print("due at exit in time")

    def push() -> None:
        if batcher.push({"model_name": "too late"}) is not Admission.CLOSED:
            print("wrong: a closed batcher took an event")

    class Last:
        def __del__(self) -> None:
            push()

    asyncio.run(run())
    atexit.register(push)
    keep.append(Last())


def left_to_asyncio_run() -> None:
    """`asyncio.run` cancels all tasks at its end: the worker takes its chance then."""
    keep.append(asyncio.run(start("left to run")))
    for number in range(3):
        print(f"due left to run more {number}")


KINDS: list[Callable[[], None]] = [
    never_started,
    forgotten_before_the_start,
    closed_loop,
    closed_loop_and_forgotten,
    closed_loop_with_a_request_under_way,
    loop_that_stands_still,
    loop_that_stands_still_and_forgotten,
    daemon_thread,
    pushed_at_exit,
    left_to_asyncio_run,
]


def main() -> None:
    for kind in KINDS:
        sys.stdout.flush()
        reader, writer = os.pipe()
        if not os.fork():
            os.dup2(writer, 2)
            os.close(reader)
            os.close(writer)
            kind()
            return  # and so to the end of the program
        os.close(writer)
        with os.fdopen(reader) as said:
            for line in said:
                print(f"{kind.__name__}: {line.rstrip()}")
        os.wait()


if __name__ == "__main__":
    main()
