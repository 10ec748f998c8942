"""Every point at which a request can fail, under both policies: what the client can know, and what follows.

Between the batcher and a local HoneyHive stands the fault proxy. The first request (of a reused connection:
the second) meets the fault, and everything after it goes through.
"""

import asyncio
import enum
import gc
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Literal, TypeAlias
from unittest.mock import patch

from aiohttp.resolver import ThreadedResolver
from msgspec import Struct

from honeyhive_batcher import Batcher
from honeyhive_batcher.core.model import Failure, Reply, Response
from honeyhive_batcher.testing import Collector, collector
from tests.integration.raw_server import Connection, Fault, server_tls
from tests.reliability.proxy import UNHARMED, Ending, Proxy, Stop, Toxic, end, endless_headers, garbage
from tests.reliability.rows import Row, Size
from tests.reliability.watched import Claims, Exchange, Watched, direct_network, open_files, until

Policy: TypeAlias = Literal["retry", "drop"]
POLICIES: tuple[Policy, ...] = ("retry", "drop")

EVENTS = 4
IDS = {f"event-{number}" for number in range(EVENTS)}
CONTENT = "x" * 100_000
"""In each event, so that a body is more than is read or written at once."""


class Class(enum.Enum):
    """What a client can know of a request."""

    UNSENT = "surely not sent"
    AMBIGUOUS = "nobody knows"
    ACCEPTED = "accepted"
    REJECTED = "rejected as too large"
    CANCELLED = "given up by ourselves: nobody knows"


def class_of(reply: Reply) -> Class:
    """Return the class that a reply of the transport stands for."""
    match reply:
        case Failure(unsent=unsent):
            return Class.UNSENT if unsent else Class.AMBIGUOUS
        case Response(status=413):
            return Class.REJECTED
        case Response():
            return Class.ACCEPTED


class Stage(Struct, kw_only=True, eq=False):
    """Everything that one trial is made of."""

    hive: Collector
    proxy: Proxy
    watched: Watched
    exchanges: list[Exchange]
    claims: Claims
    batcher: Batcher


Meanwhile: TypeAlias = Callable[[Stage], Awaitable[None]]


async def nothing(_: Stage) -> None:
    """Do nothing."""


class Point(Struct, frozen=True, kw_only=True):
    """One point of failure."""

    name: str
    faults: tuple[Fault, ...] = ()
    is_class: Class = Class.AMBIGUOUS
    cause: str = ""
    """What the first failure says of itself; empty for anything."""
    reached: bool = False
    """Whether the server has it after the first attempt."""
    timeout: float = 30.0
    host: str = "127.0.0.1"
    tls: bool = False
    reused: bool = False
    """Another event went over the connection before."""
    before: Meanwhile = nothing
    """Done when everything stands, before the events are pushed."""
    meanwhile: Meanwhile = nothing
    """Done while the events are under way."""


# What is wrong besides the bytes.


async def down(stage: Stage) -> None:
    """Refuse all connections."""
    await stage.proxy.down()


async def up_again(stage: Stage) -> None:
    """Listen again once a request has failed."""
    await until(lambda: stage.exchanges)
    await stage.proxy.up()


Lookup: TypeAlias = Callable[[], Awaitable[None]]
LOOKUPS: dict[int, Lookup] = {}
"""What befalls the next look-up of a host with this port."""
RESOLVE = ThreadedResolver.resolve


async def resolve(self: ThreadedResolver, host: str, port: int = 0, *args: Any, **options: Any) -> Any:
    """Resolve a name, in place of the method of aiohttp's resolver."""
    trouble = LOOKUPS.pop(port, None)
    if trouble is not None:
        await trouble()
    return await RESOLVE(self, host, port, *args, **options)


async def unknown_name(stage: Stage) -> None:
    """Have the next look-up fail."""

    async def fail() -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    LOOKUPS[stage.proxy.port] = fail


async def silent_name_server(stage: Stage) -> None:
    """Have the next look-up last until a request has failed."""
    LOOKUPS[stage.proxy.port] = lambda: until(lambda: stage.exchanges)


async def forgotten(stage: Stage) -> None:
    """Wait until the client has seen that its idle connection was closed."""
    session = stage.watched.inner._session
    assert session is not None
    assert session.connector is not None
    pooled = [pair[0] for pairs in session.connector._conns.values() for pair in pairs]
    assert pooled
    await until(lambda: not any(protocol.is_connected() for protocol in pooled))


async def close_it(stage: Stage) -> None:
    """Close the batcher once the toxic has its request."""
    await until(lambda: sum(stage.proxy.met.values()) and not stage.proxy.under_way)
    await stage.batcher.aclose(timeout=0)


# Faults that are no toxics.


async def unharmed_then_close(connection: Connection) -> bool:
    await UNHARMED(connection)
    return False


def after_one_byte(fault: Fault) -> Fault:
    """Return a fault of a connection on which a request has just begun."""

    async def race(connection: Connection) -> bool:
        await connection.reader.readexactly(1)
        return await fault(connection)

    return race


def early_413(ending: Ending) -> Fault:
    """Return a fault that answers as soon as it knows the length."""

    async def answer(connection: Connection) -> bool:
        await connection.head()
        await connection.answer(413)
        return await end(connection, ending)

    return answer


def broken_tls(trouble: Fault) -> tuple[Fault, ...]:
    """Return the script of a server whose TLS works from the second connection on."""

    async def begin(connection: Connection) -> bool:
        await connection.reader.readexactly(1)
        return await trouble(connection)

    async def tls(connection: Connection) -> bool:
        await connection.writer.start_tls(server_tls())
        return await unharmed_then_close(connection)

    return (begin, *[tls] * 10)


async def no_tls(connection: Connection) -> bool:
    await connection.answer(400)
    return False


HANG = 1.0
"""Seconds of the time-outs that are meant to run out."""


def stopped(stop: Stop, ending: Ending, *, timeout: float = 30.0) -> Point:
    """Return the point at which a toxic stops the first request."""
    return Point(
        name=f"{ending.name} {stop.name}",
        faults=(Toxic(stop=stop, ending=ending),),
        is_class=Class.ACCEPTED if stop is Stop.ANSWER_BODY else Class.AMBIGUOUS,
        reached=stop not in {Stop.ACCEPT, Stop.HEAD, Stop.MIDWAY},
        timeout=timeout,
    )


def points() -> list[Point]:
    """Return every point of failure."""
    reset, close, half = Ending.RESET, Ending.CLOSE, Ending.HALF_CLOSE
    never, unread = Ending.BLACK_HOLE, Ending.UNREAD
    unsent = Class.UNSENT
    return [
        Point(
            name="refused port",
            before=down,
            meanwhile=up_again,
            is_class=unsent,
            cause="cannot connect (Connection refused)",
        ),
        Point(
            name="unknown name",
            host="localhost",
            before=unknown_name,
            is_class=unsent,
            cause="the host name cannot be resolved",
        ),
        Point(
            name="silent name server",
            host="localhost",
            before=silent_name_server,
            timeout=2 * HANG,
            is_class=unsent,
            cause="connecting timed out",
        ),
        Point(
            name="TLS never answers",
            tls=True,
            faults=broken_tls(Toxic(stop=Stop.ACCEPT, ending=never)),
            timeout=2 * HANG,
            is_class=unsent,
            cause="connecting timed out",
        ),
        Point(name="TLS reset", tls=True, faults=broken_tls(Toxic(stop=Stop.ACCEPT)), is_class=unsent),
        Point(name="no TLS", tls=True, faults=broken_tls(no_tls), is_class=unsent),
        *(stopped(stop, reset) for stop in Stop),
        *(stopped(stop, close) for stop in Stop),
        *(stopped(stop, half) for stop in (Stop.ACCEPT, Stop.HEAD, Stop.MIDWAY, Stop.BODY)),
        *(stopped(stop, never, timeout=HANG) for stop in (Stop.ACCEPT, Stop.MIDWAY, Stop.BODY)),
        *(stopped(stop, unread, timeout=HANG) for stop in (Stop.ACCEPT, Stop.HEAD)),
        *(
            Point(name=words.__name__, faults=(Toxic(instead=words),), reached=True)
            for words in (garbage, endless_headers)
        ),
        *(
            Point(name=f"early 413, then {ending.name}", faults=(early_413(ending),), is_class=Class.REJECTED)
            for ending in (reset, close)
        ),
        *(
            Point(
                name=f"reused, {ending.name} {stop.name}",
                faults=(UNHARMED, after_one_byte(Toxic(stop=stop, ending=ending))),
                reused=True,
            )
            for ending in (reset, close)
            for stop in (Stop.ACCEPT, Stop.HEAD)
        ),
        Point(
            name="closed while idle",
            faults=(unharmed_then_close,),
            reused=True,
            before=forgotten,
            is_class=Class.ACCEPTED,
            reached=True,
        ),
        *(
            Point(
                name=f"cancelled, {stop.name}",
                faults=(Toxic(stop=stop, ending=never),),
                meanwhile=close_it,
                is_class=Class.CANCELLED,
                reached=reached,
            )
            for stop, reached in ((Stop.HEAD, False), (Stop.MIDWAY, False), (Stop.BODY, True))
        ),
    ]


# One trial.


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of one point under one policy."""

    seen: Class
    """What the transport said of the first attempt."""
    cause: str
    """In which words, if it failed."""
    stored: dict[str, int]
    """How often the server has each event."""
    delivered: frozenset[str]
    unconfirmed: frozenset[str]
    dropped: frozenset[str]
    fates: int
    """Fates that were claimed."""
    resends: int
    """Requests after one that nobody knows about."""
    bodies: int
    """Different bodies that were sent or arrived."""
    contents: int
    """Different contents that an event was stored with, at most."""
    balanced: bool
    """Whether the statistics say the same as the callbacks."""


async def trial(point: Point, policy: Policy) -> Outcome:
    """Send a few large events past a point of failure."""
    exchanges: list[Exchange] = []
    watched = Watched(exchanges.append)
    claims = Claims()
    async with (
        collector() as hive,
        Proxy(int(hive.url.rpartition(":")[2]), *point.faults, tls=point.tls) as proxy,
        Batcher(
            api_key="hh_test",
            base_url=f"{'https' if point.tls else 'http'}://{point.host}:{proxy.port}",
            verify_tls=False,
            on_ambiguous=policy,
            request_timeout=point.timeout,
            max_elapsed=600,
            backoff_base=0.01,
            backoff_max=0.1,
            flush_interval=0,
            _seams=watched.seams(),
            **claims.hooks(),
        ) as batcher,
    ):
        stage = Stage(
            hive=hive, proxy=proxy, watched=watched, exchanges=exchanges, claims=claims, batcher=batcher
        )
        if point.reused:
            assert batcher.push({"model_name": "gpt-4o", "event_id": "first"})
            assert await batcher.flush(timeout=30)
            exchanges.clear()
            claims.delivered.clear()
            proxy.bodies.clear()
            hive.clear()
        await point.before(stage)
        for event_id in sorted(IDS):
            assert batcher.push({"model_name": "gpt-4o", "event_id": event_id, "content": CONTENT})
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(batcher.flush(timeout=60))
            await point.meanwhile(stage)
        await batcher.aclose()
        rows = [row for row in hive.events() if row.event_id in IDS]
    stored = Counter(row.event_id for row in rows)
    contents = Counter(event_id for event_id, _ in {(row.event_id, row.raw) for row in rows})
    numbers = batcher.statistics()
    total = claims.total()
    first = None if watched.cancelled else exchanges[0].reply
    return Outcome(
        seen=Class.CANCELLED if first is None else class_of(first),
        cause=first.cause if isinstance(first, Failure) else "",
        stored=dict(stored),
        delivered=frozenset(claims.delivered),
        unconfirmed=frozenset(claims.unconfirmed),
        dropped=frozenset(claims.dropped),
        fates=total.total(),
        resends=sum(class_of(exchange.reply) is Class.AMBIGUOUS for exchange in exchanges),
        bodies=len({*proxy.bodies, *(exchange.body for exchange in exchanges)}),
        contents=max(contents.values(), default=0),
        balanced=(
            numbers.delivered - point.reused,
            numbers.unconfirmed,
            sum(numbers.dropped.values()),
            numbers.held,
        )
        == (claims.delivered.total(), claims.unconfirmed.total(), claims.dropped.total(), 0),
    )


# What is wanted.


def faults_of(point: Point, policy: Policy, outcome: Outcome) -> Iterator[str]:
    """Yield the names of the demands that an outcome does not meet."""
    if outcome.seen is not point.is_class or (point.cause and outcome.cause != point.cause):
        yield "class"
    is_unknown = point.is_class is Class.CANCELLED or (policy == "drop" and point.is_class is Class.AMBIGUOUS)
    claimed = outcome.unconfirmed if is_unknown else outcome.delivered
    if claimed != IDS or outcome.fates != EVENTS or not outcome.balanced:
        yield "claim"
    if set(outcome.stored) != (IDS if point.reached or not is_unknown else set()):
        yield "server"
    copies = max(outcome.stored.values(), default=0)
    if copies > 1 + (outcome.resends if policy == "retry" else 0):
        yield "duplicates"
    if point.is_class is not Class.REJECTED and outcome.bodies > 1:
        yield "bodies"
    if outcome.contents > 1:
        yield "bodies"


async def all_trials(size: Size) -> dict[tuple[str, Policy], list[str]]:
    """Return the demands that were not met, by point and policy; a few trials run at once."""
    broken: dict[tuple[str, Policy], list[str]] = {}
    at_once = asyncio.Semaphore(8)

    async def run(point: Point, policy: Policy) -> None:
        async with at_once:
            outcome = await trial(point, policy)
        broken.setdefault((point.name, policy), []).extend(faults_of(point, policy, outcome))

    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(1 if size is Size.QUICK else 10):
            for point in points():
                for policy in POLICIES:
                    tasks.create_task(run(point, policy))
    gc.collect()
    broken["the event loop", "retry"] = ["complaint"] * len(complaints)
    return broken


DEMANDS = {
    "class": "class of the first reply as measured for aiohttp",
    "claim": "each event has one fate, and it is the right one",
    "server": "what the server has: all that is claimed as delivered, and of the rest what reached it",
    "duplicates": "events stored again without a resend of what was ambiguous; with drop, at all",
    "bodies": "retried bodies and stored events equal, byte for byte",
    "complaint": "complaints of the event loop",
}


def rows(size: Size) -> Iterator[Row]:
    """Run every point of failure under both policies."""
    before = open_files()
    with direct_network(), patch.object(ThreadedResolver, "resolve", resolve):
        broken = asyncio.run(all_trials(size))
    cases = len(points()) * len(POLICIES) * (1 if size is Size.QUICK else 10)
    for demand, what in DEMANDS.items():
        wrong = [f"{name} ({policy})" for (name, policy), demands in broken.items() if demand in demands]
        failed = sum(demands.count(demand) for demands in broken.values())
        yield Row(
            bar=9,
            what=f"{len(points())} points of failure, retry and drop: {what}",
            figure=f"{failed} of {cases} wrong{': ' if wrong else ''}{', '.join(wrong)}",
            bound="0",
            holds=not failed,
        )
    gc.collect()
    left = open_files() - before
    yield Row(bar=9, what="file descriptors left", figure=str(left), bound="0", holds=left <= 0)
