"""The host's protection in the gate, and in full with `-m soak`."""

import asyncio
import socket
import threading
from pathlib import Path

import pytest

from tests.reliability import hostlag
from tests.reliability.child import in_a_process
from tests.reliability.rows import Size, assert_rows


def test_a_server_that_is_down_blocks_nothing_on_the_loops_thread() -> None:
    assert_rows(hostlag.rows, Size.QUICK)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_the_loop_turns_as_before_at_twenty_thousand_events_a_second() -> None:
    assert_rows(hostlag.rows, Size.FULL)


def blocking() -> dict[str, list[str]]:
    """Do what a guard has to notice, and what it has to let pass."""
    guard = hostlag.Guard()

    def elsewhere() -> None:
        Path("/dev/null").open("rb").close()

    with guard.armed():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", 1))
    passed = sorted(guard.seen)
    with guard.armed():
        Path("/dev/null").open("rb").close()
        socket.getaddrinfo(b"127.0.0.1", 1)  # a string would import a codec
        with socket.socket() as sock:
            sock.connect_ex(("127.0.0.1", 1))
    Path("/dev/null").open("rb").close()
    return {"passed": passed, "seen": sorted(guard.seen)}


def test_the_guard_sees_what_blocks_and_only_that() -> None:
    value = in_a_process(blocking).value
    assert value["passed"] == []
    assert value["seen"] == [
        "open(/dev/null)",
        "socket.connect, blocking",
        "socket.getaddrinfo(b'127.0.0.1')",
    ]


def stalling() -> dict[str, float]:
    longest = hostlag.watch_callbacks()

    async def stall() -> None:
        sum(range(3_000_000))

    asyncio.run(stall())
    return {"longest": longest[0]}


def test_the_longest_callback_is_measured() -> None:
    assert in_a_process(stalling).value["longest"] > 0.01
