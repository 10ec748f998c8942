"""The host while the server is down: its event loop turns as before, and nothing blocks on its thread."""

import asyncio
import contextlib
import importlib
import logging
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from honeyhive_batcher import Batcher
from tests.reliability import peer
from tests.reliability.child import in_a_process
from tests.reliability.memory import event
from tests.reliability.rows import Row, Size

_TICK = 0.001
"""Seconds between two looks at the clock, and between two rounds of pushes."""
_SLOW = 0.05
"""Seconds from which a callback is slow."""

_BLOCKING = {
    "open",
    "import",  # it reads the disk; what is imported already raises no such event
    "os.listdir",
    "os.scandir",
    "os.system",
    "os.posix_spawn",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.gethostbyaddr",
    "subprocess.Popen",
    "time.sleep",
}
"""What may wait for the disk, the network or another process, as Python's audit hooks name it."""


class Guard:
    """Notes what might block on one thread, while it is armed."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._thread: int | None = None
        sys.addaudithook(self._audit)  # for good: there is no way to take it off

    def _audit(self, name: str, args: tuple[Any, ...]) -> None:
        if self._thread != threading.get_ident():
            return
        if name in _BLOCKING:
            self.seen.add(f"{name}({args[0] if args else ''})")
        elif name == "socket.connect" and args[0].gettimeout() != 0:
            self.seen.add("socket.connect, blocking")

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Watch the calling thread."""
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None


class _Slow(logging.Handler):
    """Counts what asyncio's debug mode says about slow callbacks."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def watch_callbacks() -> list[float]:
    """Have the loop measure the CPU seconds of every callback; returns where the longest one stands.

    Unlike the time on the clock, these do not tell of other programs on a busy machine.
    """
    longest = [0.0]
    run = asyncio.Handle._run

    def timed(self: asyncio.Handle) -> None:
        began = time.thread_time()
        run(self)
        longest[0] = max(longest[0], time.thread_time() - began)

    asyncio.Handle._run = timed  # type: ignore[method-assign]  # there is no other way in
    return longest


@contextlib.contextmanager
def down(server: str) -> Iterator[str]:
    """Give the URL of a server that is down in its way. The name has to be resolved."""
    if server == "refused":
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            yield f"http://localhost:{bound.getsockname()[1]}"
    else:
        with peer.running("black hole" if server == "black hole" else "unavailable") as running:
            yield running.url.replace("127.0.0.1", "localhost")


def host(*, server: str, rate: int, rounds: int, seconds: float, debug: bool) -> dict[str, Any]:
    """Push `rate` events a second in the loop while the server is down, in turns with nothing at all. In a
    process of its own.
    """
    # Importing it is what starting a batcher costs for the first time, before anything is sent.
    importlib.import_module("aiohttp")
    logging.getLogger("honeyhive_batcher").setLevel(logging.CRITICAL)
    slow = _Slow()
    logging.getLogger("asyncio").addHandler(slow)
    longest = watch_callbacks()
    sending, closing = Guard(), Guard()
    lags: list[float] = []
    raised: list[str] = []
    pushed = 0
    requests = 0

    async def main(url: str) -> list[float]:
        asyncio.get_running_loop().slow_callback_duration = _SLOW
        probing = asyncio.create_task(probe())
        excess: list[float] = []
        longest[0] = 0.0
        for _ in range(rounds):
            idle = await phase(asyncio.sleep(seconds))
            busy = await one_run(url)
            excess.append(busy - idle)
        probing.cancel()
        return excess

    async def one_run(url: str) -> float:
        nonlocal requests
        batcher = Batcher(
            api_key="hh_test",
            base_url=url,
            overflow="drop_oldest",  # the dearer one
            max_queue_events=1_000_000,
            request_timeout=0.5,
        )
        before = longest[0]
        await batcher.start()
        longest[0] = before  # where a program starts is not where it serves
        with sending.armed():
            busy = await phase(push(batcher))
        requests += batcher.statistics().requests
        with closing.armed():
            await batcher.aclose(timeout=0)
        return busy

    async def push(batcher: Batcher) -> None:
        nonlocal pushed
        began, number = time.monotonic(), 0
        while (now := time.monotonic()) < began + seconds:
            for _ in range(int((now - began) * rate) - number):
                number += 1
                try:
                    batcher.push(event(number))
                except BaseException as error:  # the very thing that must not happen
                    raised.append(repr(error))
            await asyncio.sleep(_TICK)
        pushed += number

    async def phase(main: Any) -> float:
        """Return the 99th percentile of the loop's lag meanwhile."""
        lags.clear()
        await main
        return statistics.quantiles(lags, n=100)[98]

    async def probe() -> None:
        while True:
            at = time.perf_counter()
            await asyncio.sleep(_TICK)
            lags.append(time.perf_counter() - at - _TICK)

    with down(server) as url:
        excess = asyncio.run(main(url), debug=debug)
    return {
        "excess": statistics.median(excess),
        "pushed": pushed,
        "requests": requests,
        "raised": raised,
        "sending": sorted(sending.seen),
        "closing": sorted(closing.seen),
        "slow": slow.said,
        "longest": longest[0],
    }


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of the host's protection."""
    full = size is Size.FULL
    for server in ("refused", "black hole", "unavailable"):
        if full:
            figures = in_a_process(host, server=server, rate=20_000, rounds=9, seconds=2.0, debug=False).value
            said = f"server down ({server}), 20,000 events/s x 2 KB"
            yield Row(
                bar=17,
                what=f"{said}: loop lag p99 above that of an idle loop, median of 9 rounds",
                figure=f"{1000 * figures['excess']:.1f} ms",
                bound="<= 5 ms",
                holds=figures["excess"] <= 0.005 and figures["pushed"] > 300_000,
            )
            yield from _common(said, figures)
        figures = in_a_process(
            host,
            server=server,
            rate=5_000,
            rounds=3 if full else 1,
            seconds=2.0 if full else 0.6,
            debug=False,
        ).value
        said = f"server down ({server}), 5,000 events/s x 2 KB"
        if full:  # a time, and so nothing for the gate
            yield Row(
                bar=17,
                what=f"{said}: CPU time of the longest callback",
                figure=f"{1000 * figures['longest']:.1f} ms",
                bound="< 50 ms",
                holds=0 < figures["longest"] < _SLOW,
            )
        yield from _common(said, figures)
        if full:
            figures = in_a_process(host, server=server, rate=5_000, rounds=4, seconds=2.0, debug=True).value
            yield Row(
                bar=17,
                what=f"{said}, asyncio's debug mode: warnings of callbacks slower than 50 ms",
                figure="; ".join((str(len(figures["slow"])), *figures["slow"][:1])),
                bound="0",
                holds=not figures["slow"] and figures["pushed"] > 0,
            )


def _common(said: str, figures: dict[str, Any]) -> Iterator[Row]:
    yield Row(
        bar=17,
        what=f"{said}: exceptions out of push, of {figures['pushed']:,}",
        figure=str(len(figures["raised"])),
        bound="0",
        holds=not figures["raised"] and figures["pushed"] > 0 and figures["requests"] > 0,
    )
    for name in ("sending", "closing"):
        seen = figures[name]
        yield Row(
            bar=17,
            what=f"{said}: files, imports, processes, blocking sockets on the loop's thread while {name}",
            figure=f"{len(seen)}" + (f": {', '.join(seen[:3])}" if seen else ""),
            bound="0",
            holds=not seen,
        )
