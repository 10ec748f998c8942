"""In test mode, and during a capture, no socket is opened: Python's own audit hook watches a real program."""

import subprocess
import sys

import pytest

GUARD = """
import asyncio, os, socket, sys

opened = []
pairs = 0  # the event loop wakes itself through one

def watch(name, args):
    global pairs
    if name in {"socket." + what for what in ("connect", "getaddrinfo", "gethostbyname", "bind", "sendto")}:
        opened.append((name, args[1:]))
    elif name == "socket.__new__":
        family = args[1]
        if family in (-1, getattr(socket, "AF_UNIX", None)) and "socketpair" in callers():
            pairs += 1
        else:
            opened.append((name, args[1:]))

def callers():
    frame, names = sys._getframe(2), set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return names

sys.addaudithook(watch)
"""

PROGRAM = """
from honeyhive_batcher import Batcher, BlockingBatcher

async def main():
    async with Batcher.from_env(max_batch_events=2, {settings}) as batcher:
        with batcher.session(session_name="s") as session:
            for _ in range(5):
                assert batcher.push({{"model": "m"}})
            assert await batcher.put({{"model": "m"}})
            session.outputs = {{"a": 1}}
        assert (await batcher.flush()).ok
    assert batcher.statistics().delivered == 7
    assert batcher.statistics().requests >= 3

asyncio.run(main())
with BlockingBatcher.from_env() as batcher:
    batcher.push({{"model": "m"}})
    assert batcher.flush().ok
print(pairs > 0, opened)
"""

CAPTURE = """
from honeyhive_batcher import Batcher
from honeyhive_batcher.testing import capture

async def main():
    async with Batcher(api_key="hh_test", base_url="http://127.0.0.1:9", flush_interval=0) as batcher:
        with batcher.session(session_name="s") as session:
            assert batcher.push({"model": "m"})
            assert await batcher.put({"model": "m"})
            session.outputs = {"a": 1}
        await asyncio.sleep(0.1)
        assert (await batcher.flush()).ok

with capture() as events:
    asyncio.run(main())
assert len(events) == 2
print(pairs > 0, opened)
"""

CONNECTS = """
from honeyhive_batcher import Batcher

async def main():
    async with Batcher(api_key="hh_test", base_url="http://127.0.0.1:9", shutdown_timeout=0.5) as batcher:
        batcher.push({"model": "m"})

asyncio.run(main())
print({name for name, _ in opened})
"""


def run(source: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", GUARD + source],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("settings", ["", "compression='gzip'", "cost=lambda _: 0.5"])
def test_in_test_mode_no_socket_is_opened(settings: str) -> None:
    assert run(PROGRAM.format(settings=settings), HH_TEST_MODE="true") == "True []\n"


def test_during_a_capture_no_socket_is_opened() -> None:
    assert run(CAPTURE) == "True []\n"


def test_the_guard_sees_a_program_that_does_connect() -> None:
    assert "socket.connect" in run(CONNECTS)
