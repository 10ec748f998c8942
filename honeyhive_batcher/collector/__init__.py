"""A local HoneyHive in aiohttp.web and SQLite: a strict contract, and faults on demand.

server      the collector as one object            endpoint    the emulated routes
contract    what a body must hold                  dev_routes  the routes under /_dev
body        reading a body within the ceiling      guard       Host, Authorization, Content-Type
answer      one request's lot                      faults      how often which lot is drawn
store       events, sessions and requests          database    the SQLite file
rows        what is stored, as readers see it      refusal     saying no in HoneyHive's words
"""

from honeyhive_batcher.collector.answer import Answer, RequestInfo, Step
from honeyhive_batcher.collector.body import MAX_BODY_BYTES
from honeyhive_batcher.collector.faults import Faults
from honeyhive_batcher.collector.rows import Stats, StoredEvent, StoredRequest, StoredSession
from honeyhive_batcher.collector.server import Collector, Settings

__all__ = [
    "MAX_BODY_BYTES",
    "Answer",
    "Collector",
    "Faults",
    "RequestInfo",
    "Settings",
    "Stats",
    "Step",
    "StoredEvent",
    "StoredRequest",
    "StoredSession",
]
