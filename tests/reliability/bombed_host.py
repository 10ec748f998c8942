"""A program that takes three answers from each server, and says what the last of them cost in memory.

It runs in a process of its own: `python -m tests.reliability.bombed_host <url> ...`. For each URL it prints
a line of JSON.
"""

import asyncio
import gc
import json
import resource
import sys
import tracemalloc
from pathlib import Path

from honeyhive_batcher import EndpointSettings
from honeyhive_batcher.core.model import Response
from honeyhive_batcher.core.request import Request
from honeyhive_batcher.runtime.transport import AiohttpTransport

REQUEST = Request(
    method="POST",
    path="/events/model/batch",
    parts=(b'{"model_events":[{"event_id":"a"}]}',),
    max_reply_bytes=64 * 1024,
)


def peak_rss() -> int:
    """Return the most memory that this process ever had, in bytes; since `forget_peak` on Linux."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak() -> None:
    """Have the peak begin anew, where that can be had."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return


async def cost_of_third(url: str) -> dict[str, int]:
    """Send three requests, and return what the third took: some is taken once and for all."""
    transport = AiohttpTransport(EndpointSettings(api_key="hh_test", base_url=url))
    await transport.open()
    for _ in range(2):
        await transport.send(REQUEST)
    gc.collect()
    tracemalloc.start()
    forget_peak()
    before = peak_rss()
    reply = await transport.send(REQUEST)
    cost = {"rss": peak_rss() - before, "traced": tracemalloc.get_traced_memory()[1]}
    tracemalloc.stop()
    await transport.close()
    return {**cost, "status": reply.status if isinstance(reply, Response) else 0}


if __name__ == "__main__":
    for url in sys.argv[1:]:
        print(json.dumps(asyncio.run(cost_of_third(url))))
