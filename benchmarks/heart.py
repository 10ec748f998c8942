"""Another process that knocks at an event loop, to see how long it takes to open.

Timers of asyncio are rounded to milliseconds; a datagram is not. Each carries the time it was sent, on the
clock that all processes share.
"""

import asyncio
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.alone import SERVER_CORE, pin

_BETWEEN = 0.0005
_STAMP = struct.Struct("d")


class _Door(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.lags: list[float] = []
        self.was_knocked_at = asyncio.Event()

    def datagram_received(self, data: bytes, _address: object) -> None:
        self.was_knocked_at.set()
        self.lags.append(time.monotonic() - _STAMP.unpack(data)[0])


@asynccontextmanager
async def beating() -> AsyncIterator[list[float]]:
    """Give the list to which the running loop's lags, in seconds, are appended."""
    loop = asyncio.get_running_loop()
    transport, door = await loop.create_datagram_endpoint(_Door, ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    process = _start(port)
    try:
        await door.was_knocked_at.wait()
        door.lags.clear()
        yield door.lags
    finally:
        process.terminate()
        process.wait()
        transport.close()


def _start(port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "benchmarks.heart", str(port)])


def _beat(port: int) -> None:
    chance = random.Random(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knocker:
        knocker.connect(("127.0.0.1", port))
        while True:
            time.sleep(chance.uniform(0.5, 1.5) * _BETWEEN)  # in step with nothing
            knocker.send(_STAMP.pack(time.monotonic()))


if __name__ == "__main__":
    pin(SERVER_CORE)
    _beat(int(sys.argv[1]))
