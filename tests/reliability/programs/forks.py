"""Forks before the start, after it, out of a coroutine, and while eight threads push; parent and children
log. Prints a line for what each process pushed and its numbers, and what went wrong.

Usage: forks.py NUMBER_OF_FORKS
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import aiohttp  # noqa: F401 - once here, not in every child

from honeyhive_batcher import Batcher

batcher = Batcher.from_env(flush_interval=0.01, max_queue_events=1000)
pushed: list[str] = []
"""By this process."""


def push(name: str) -> None:
    """Push one event, and write down that it has to arrive."""
    if batcher.push({"model_name": name}):
        pushed.append(name)
        os.write(1, f"due {name}\n".encode())  # one call, so that the lines of two processes never mix


def tell(what: str) -> None:
    os.write(1, f"{what}\n".encode())


def check(name: str) -> None:
    """Say so when the numbers of this process are not those of what it pushed."""
    numbers = batcher.statistics()
    if (numbers.accepted, numbers.delivered) != (len(pushed), len(pushed)):
        tell(f"wrong {name}: {len(pushed)} pushed, {numbers}")


async def log(name: str) -> None:
    async with batcher:
        push(f"{name} started")
        if not await batcher.flush(timeout=30):
            tell(f"wrong {name}: not delivered")
        push(f"{name} closing")


def child(name: str) -> None:
    """Be a program of one's own."""
    pushed.clear()
    signal.alarm(30)  # a deadlock ends it, and is seen
    if "not started" not in repr(batcher):
        tell(f"wrong {name}: {batcher!r}")
    push(f"{name} early")
    asyncio.run(log(name))
    check(name)


def fork(name: str, *, ends_at_once: bool, then: Callable[[str], None] = child) -> int:
    """Fork a child that logs; the child never returns from here."""
    pid = os.fork()
    if pid:
        return pid
    then(name)
    if ends_at_once:
        os._exit(0)
    sys.exit(0)  # with all that Python does at the end of a program, in the midst of the parent's things


def wait(*pids: int) -> None:
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        if status:
            tell(f"wrong child: it ended with {status}")


def nested(name: str) -> None:
    """Fork a grandchild, and log before and after."""
    child(name)
    grandchild = os.fork()
    if not grandchild:
        child(f"{name} nested")
        os._exit(0)
    wait(grandchild)


def before_the_start() -> None:
    push("held")  # the parent's, who has not started yet
    wait(fork("before", ends_at_once=False), fork("nested", ends_at_once=True, then=nested))


def while_the_loop_stands_still() -> None:
    """The child ends with a connection, a task and a loop of the parent's in its hands."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(batcher.start())
    push("still")
    loop.run_until_complete(batcher.flush())
    wait(fork("standing still", ends_at_once=False))
    push("moving")  # over the connection that the child knew, too
    loop.run_until_complete(batcher.flush())
    loop.run_until_complete(batcher.aclose())
    loop.close()


def while_a_thread_holds_the_lock() -> None:
    """As one does that is in the midst of a push."""
    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with batcher._intake._lock:
            is_held.set()
            is_over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    wait(fork("locked", ends_at_once=True))
    is_over.set()
    holder.join()


async def out_of_a_coroutine() -> None:
    """With a session bound, whose end is the parent's to tell."""
    async with batcher:
        with batcher.session(session_name="chat") as session:
            push("in a session")
            pid = os.fork()
            if not pid:
                os._exit(_child_in_a_coroutine())
            await asyncio.to_thread(wait, pid)
            session.outputs = {"of": "the parent"}
        pushed.append("end")  # the end of the session counts as one
        pid = fork_without_telling_python()
        await asyncio.to_thread(wait, pid)


def _child_in_a_coroutine() -> int:
    try:
        child("in a coroutine")
    except BaseException as error:
        tell(f"wrong child: {error!r}")
    return 0


def fork_without_telling_python() -> int:
    """Fork as C code does, which calls none of Python's hooks."""
    import ctypes  # noqa: PLC0415 - the one who needs it

    pid = ctypes.PyDLL(None).fork()
    if not pid:
        pushed.clear()
        signal.alarm(30)
        asyncio.run(log("unseen"))
        check("unseen")
        os._exit(0)
    return int(pid)


def while_threads_push(forks: int) -> None:
    """Eight threads push all the time, so that many a fork happens while one of them holds the lock."""
    loop = asyncio.new_event_loop()
    home = threading.Thread(target=loop.run_forever)
    home.start()
    asyncio.run_coroutine_threadsafe(batcher.start(), loop).result(30)
    is_over = threading.Event()
    accepted = [0] * 8

    def push_all_the_time(thread: int) -> None:
        while not is_over.is_set():
            for _ in range(10):
                if batcher.push({"model_name": f"thread {thread} {accepted[thread]}"}):
                    accepted[thread] += 1
            time.sleep(0.05)

    threads = [threading.Thread(target=push_all_the_time, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for number in range(forks):
        wait(fork(f"fork {number}", ends_at_once=number % 2 == 0))
    is_over.set()
    for thread in threads:
        thread.join()
    asyncio.run_coroutine_threadsafe(batcher.aclose(30), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    home.join()
    loop.close()
    for number, events in enumerate(accepted):
        pushed.extend([f"thread {number}"] * events)
        tell(f"due {events} of thread {number}")


def main() -> None:
    before_the_start()
    while_the_loop_stands_still()
    while_a_thread_holds_the_lock()
    asyncio.run(out_of_a_coroutine())
    asyncio.run(batcher.start())
    while_threads_push(int(sys.argv[1]))
    check("parent")


if __name__ == "__main__":
    main()
