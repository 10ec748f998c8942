"""Every status that is no success, with every Retry-After: what follows, and not before when.

The table of statuses is written here by hand, from the agreement on what each of them means. It is held
against the engine in a time of its own, with events pushed and flushes asked for all the while; a
representative part runs over a real socket, because there the header is read.
"""

import asyncio
import functools
import itertools
import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias
from unittest.mock import patch

from msgspec import Struct

from honeyhive_batcher import Batcher
from honeyhive_batcher.config import Config, RetryLimits
from honeyhive_batcher.core import wire
from honeyhive_batcher.core.backoff import backoff
from honeyhive_batcher.core.model import Reply, Response
from honeyhive_batcher.core.request import Request
from honeyhive_batcher.runtime.transport import AiohttpTransport
from tests.core.rig import Rig, Sent, answer
from tests.fakes import FakeTransport, make_batcher
from tests.integration.raw_server import Connection, RawServer
from tests.reliability.log_lines import log_lines
from tests.reliability.rows import Row, Size
from tests.virtual_time import run_virtually

Policy: TypeAlias = Literal["retry", "drop"]

POLICIES: tuple[Policy, ...] = ("retry", "drop")
HOUR = 3600.0
MINUTE = 60.0
WALL = 1_800_000_000.0  # Unix seconds, of the wall clock that dates are held against
LATENCY = 0.01
MAX_RETRIES = 2


def expected_class(status: int) -> str:
    """Return what a status means, without a body that says more."""
    if 300 <= status <= 399:
        return "hold"  # events are not sent on to where it points: as if there were nothing here
    if status in {401, 403, 404}:
        return "hold"
    if status in {402, 405, 407, 410}:
        return "hold"  # a bill, a method, a proxy, a route that is gone: nothing that an event could cause
    if status in {408, 425, 429, 503}:
        return "wait"
    if status == 409:
        return "conflict"  # the server has it already
    if status == 413:
        return "split"
    if status >= 500:
        return "ambiguous"
    return "bisect"  # 400, 422, and whatever else finds fault with the request


class Header(Struct, frozen=True, kw_only=True):
    """A Retry-After as a server writes it."""

    kind: str
    value: str | None = None
    """None for no header, or for a date."""
    ahead: float | None = None
    """Seconds by which a date is ahead of the present."""
    form: str = "%a, %d %b %Y %H:%M:%S GMT"
    """How a date is written."""
    seconds: float | None
    """What it asks for."""

    def at(self, wall: float) -> str | None:
        """Return what the server writes at this instant."""
        return self.value if self.ahead is None else time.strftime(self.form, time.gmtime(wall + self.ahead))

    @property
    def read(self) -> float | None:
        """What the package makes of it, no time having passed."""
        return wire.retry_after(self.at(WALL), wall=WALL)


MALFORMED = (
    "",
    " ",
    "soon",
    "-1",
    "+5",
    "1.5",
    "1e3",
    "0x10",
    "1_000",
    "10 s",
    "10;5",
    "120, 240",
    "nan",
    "inf",
    "１２",
    "²",
    "\udcff",
    "2099-01-01T00:00:00Z",
    "Wed",
    "Wed, 21 Oct",
    "Wed, 99 Oct 2099 07:28:00 GMT",
    "Wed, 21 Oct 2099 25:61:00 GMT",
    "Wed, 21 Oct 99999 07:28:00 GMT",
    "Wed, 21 Oct 2099 07:28:00 +9999",
    "Wed, 21 Oct 2099 07:28:00 +99999999999999999999",
    "Mon, 0 Jan 0000 00:00:00 GMT",
    "1 2 3 4 5 6",
    "(" * 5000,
    '"',
    "x" * 8000,
)

HEADERS = (
    Header(kind="none", seconds=None),
    Header(kind="seconds", value="90", seconds=90.0),
    Header(kind="no seconds", value="0", seconds=0.0),
    Header(kind="seconds, with zeros", value="0" * 20 + "90", seconds=90.0),
    Header(kind="date", ahead=90.0, seconds=90.0),
    Header(kind="date of RFC 850", ahead=90.0, form="%A, %d-%b-%y %H:%M:%S GMT", seconds=90.0),
    Header(kind="date of asctime", ahead=90.0, form="%a %b %d %H:%M:%S %Y", seconds=90.0),
    Header(kind="past date", ahead=-90.0, seconds=0.0),
    Header(kind="date a year ahead", ahead=365 * 86_400.0, seconds=HOUR),
    Header(kind="10^9 s", value="1000000000", seconds=HOUR),
    Header(kind="10^4000 s", value="1" + "0" * 4000, seconds=HOUR),
    *(Header(kind=f"malformed: {value[:12]}", value=value, seconds=None) for value in MALFORMED),
)


def rows(size: Size) -> Iterator[Row]:
    """Yield what follows every status and every header."""
    is_full = size is Size.FULL
    yield from headers()
    yield from classes(is_full=is_full)
    yield from waiting(is_full=is_full)
    yield from sockets(is_full=is_full)
    yield from holding(is_full=is_full)
    yield from jitter()


# The header.


def headers() -> Iterator[Row]:
    wrong = [header.kind for header in HEADERS if header.read != header.seconds]
    yield Row(
        bar=12,
        what=f"{len(HEADERS)} forms of Retry-After ({len(MALFORMED)} malformed): read otherwise than meant",
        figure=f"{len(wrong)} {wrong or ''}".rstrip(),
        bound="0",
        holds=not wrong,
    )


# The classes.


def found_class(status: int, policy: Policy) -> str:
    """Return how the engine deals with a server that answers nothing but this status."""
    rig = Rig(on_ambiguous=policy, max_retries=MAX_RETRIES, max_elapsed=HOUR / 6)
    names = rig.push_many(4)
    rig.serve(lambda _: answer(status), until=HOUR)
    sizes = [len(sent.ids) for sent in rig.sent]
    fates = {rig.fate(name) for name in names}
    same = {sent.body for sent in rig.sent}
    is_held = rig.statistics.endpoint == "held" and len(same) == 1
    if fates == {None} and is_held:
        return "hold" if min(gaps(rig)) >= MINUTE else "held, and asked too often"
    # Surely not taken, so it is either kept or dropped, and never unconfirmed; how long it is kept is a
    # matter of the limits for retries.
    if fates in ({"retries_exhausted"}, {None}) and len(sizes) > MAX_RETRIES and len(same) == 1:
        return "wait"
    requests = 1 if policy == "drop" else 1 + MAX_RETRIES
    if fates == {"unconfirmed"} and sizes == [4] * requests and len(same) == 1:
        return "ambiguous"
    if fates == {"too_large"} and sorted(sizes) == [1, 1, 1, 1, 2, 2, 4]:
        return "split"
    if fates == {"delivered"} and sorted(sizes) == [1, 1, 1, 1, 2, 2, 4]:
        return "conflict"
    if fates == {"rejected"} and sizes[:3] == [4, 2, 1]:
        return "bisect"
    return f"unknown: {fates} {sizes}"


def gaps(rig: Rig) -> list[float]:
    """Return the seconds between one request and the next."""
    return [after.at - before.at for before, after in itertools.pairwise(rig.sent)]


def classes(*, is_full: bool) -> Iterator[Row]:
    """Every status with both policies; in the quick size mostly with "retry"."""
    cases = [
        (status, policy)
        for status in range(300, 600)
        for policy in (POLICIES if is_full or status % 50 == 0 else POLICIES[:1])
    ]
    wrong = [
        f"{status} {policy}: {found}"
        for status, policy in cases
        if (found := found_class(status, policy)) != expected_class(status)
    ]
    yield Row(
        bar=12,
        what=f"every status 300-599 x `on_ambiguous`, {len(cases)} cases: not as the table says",
        figure=f"{len(wrong)} {wrong[:1] or ''}".rstrip(),
        bound="0",
        holds=not wrong,
    )


# Not before when.


class Wait(Struct, frozen=True, kw_only=True):
    """What followed one answer, while others pushed and flushed."""

    early: int
    """Requests before the instant that the server had asked for."""
    first_after: float
    """Seconds from the answer to the next request of anybody."""
    log: tuple[tuple[float, tuple[str, ...]], ...]
    """All requests: when, and of what."""


def wait(status: int, retry_after: float | None, policy: Policy) -> Wait:
    """Answer this to the first request, and well from then on; push and flush in between."""
    rig = Rig(
        jitter=random.Random(status).random, max_elapsed=10 * HOUR, max_batch_events=4, on_ambiguous=policy
    )
    rig.push_many(4)

    def server(sent: Sent) -> Reply:
        return answer(status, retry_after) if len(rig.sent) == 1 else sent.all_named

    rig.serve(server, until=LATENCY, latency=LATENCY)
    answered_at = rig.now
    for number, step in enumerate((0.0, 0.3, 29.0, 59.9, 89.9, 90.0, HOUR - 1.0, HOUR)):
        rig.serve(server, until=answered_at + step, latency=LATENCY)
        rig.push(*(f"later{number}-{each}" for each in range(5)))  # one batch is full, the other is not
        rig.flush()
    rig.serve(server, latency=LATENCY)
    rig.assert_settled()
    following = rig.sent[1:]
    asked_until = answered_at + (retry_after or 0.0)
    return Wait(
        early=sum(sent.at < asked_until for sent in following),
        first_after=following[0].at - answered_at,
        log=tuple((sent.at, sent.ids) for sent in rig.sent),
    )


def waiting(*, is_full: bool) -> Iterator[Row]:
    """All headers with every status in full; else two of them with each, all of them in turn."""
    early = late = unlike = hasty = count = 0
    longest = 0.0
    for status in range(300, 600):
        first = 1 + 2 * status % (len(HEADERS) - 2)
        for policy in POLICIES if is_full else POLICIES[status % 2 :][:1]:
            plain: Wait | None = None
            for header in HEADERS if is_full else HEADERS[first : first + 2]:
                found = wait(status, header.read, policy)
                count += 1
                early += found.early
                longest = max(longest, found.first_after)
                least = MINUTE if expected_class(status) == "hold" else 0.0
                hasty += found.first_after < least
                if header.seconds:  # a flush waits for it: it goes as soon as it may
                    late += found.first_after > max(header.seconds, least) + 1.0
                else:
                    plain = plain or wait(status, None, policy)
                    unlike += found.log != plain.log
    yield Row(
        bar=12,
        what=f"300-599 x Retry-After, {count:,} cases, pushed and flushed meanwhile: requests before it ends",
        figure=f"{early}",
        bound="0",
        holds=early == 0 and count > 300,
    )
    yield Row(
        bar=12,
        what="... over a second after it; longest wait (10^9 s, a year); held ones asked within a minute",
        figure=f"{late}; {longest:.1f} s; {hasty}",
        bound=f"0; {HOUR:.1f} s; 0",
        holds=late == 0 and longest == HOUR and hasty == 0,
    )
    yield Row(
        bar=12,
        what="... cases in which a malformed or past one changes anything",
        figure=f"{unlike}",
        bound="0",
        holds=unlike == 0,
    )


# Over a real socket.


class Scripted(RawServer):
    """Answers every request with the same status and, if there is one, the same Retry-After."""

    def __init__(self, status: int, header: str | None, times: int) -> None:
        async def fault(connection: Connection) -> bool:
            await connection.request()
            self.answered_at.append(asyncio.get_running_loop().time())
            await connection.answer(status, b"", *([] if header is None else [f"Retry-After: {header}"]))
            return True

        super().__init__(*[fault] * times)
        self.answered_at: list[float] = []


async def read_over_socket(status: int, header: str | None) -> Response | None:
    """Return what the transport makes of such an answer; None if of no answer at all."""
    async with Scripted(status, header, 1) as server:
        transport = AiohttpTransport(Config.of(api_key="hh_test", base_url=server.url).endpoint)
        await transport.open()
        try:
            body = b'{"model_events":[]}'
            request = Request(method="POST", path=wire.BATCH_PATH, parts=(body,), max_reply_bytes=1000)
            reply = await transport.send(request)
        finally:
            await transport.close()
    return reply if isinstance(reply, Response) else None


async def read_all(statuses: Sequence[int]) -> tuple[int, list[str]]:
    """Return how many answers were read, and which of them otherwise than meant."""
    wrong: list[str] = []
    count = 0
    for status in statuses:
        for header in HEADERS:
            if header.value is not None and not header.value.isascii():
                continue  # this server writes text
            before = time.time()
            reply = await read_over_socket(status, header.at(before))
            elapsed = time.time() - before
            count += 1
            found = None if reply is None else reply.retry_after
            # A date tells whole seconds, and some time has passed since it was written.
            slack = 0.0 if header.ahead is None or header.seconds in {0.0, HOUR} else 1.0 + elapsed
            if header.seconds is None or found is None:
                is_right = found is header.seconds
            else:
                is_right = header.seconds - slack <= found <= header.seconds
            if not is_right or reply is None or reply.status != status:
                wrong.append(f"{status} {header.kind}: {reply}")
    return count, wrong


async def soonest_after(status: int) -> tuple[float, int]:
    """Send two batches and flush, over a socket, to a server that asks for a second's wait; return the
    seconds until the next request came, and the events delivered at last.
    """
    async with (
        Scripted(status, "1", 1) as server,
        Batcher(
            api_key="hh_test", base_url=server.url, backoff_base=0.0, flush_interval=0.0, max_in_flight=1
        ) as batcher,
    ):
        batcher.push({"model": "gpt-4o"})
        await _until(lambda: server.answered_at)
        batcher.push({"model": "gpt-4o"})
        flush = asyncio.create_task(batcher.flush())
        await _until(lambda: len(server.heads) > 1)
        seconds = asyncio.get_running_loop().time() - server.answered_at[0]
        await flush
        return seconds, batcher.statistics().delivered


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30.0):
        while not condition():  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(0.001)


def sockets(*, is_full: bool) -> Iterator[Row]:
    statuses = (300, 304, 308, 400, 401, 404, 408, 413, 422, 425, 429, 451, 500, 502, 503, 599)
    with log_lines(), patch.dict(os.environ, {"NO_PROXY": "localhost", "no_proxy": "localhost"}):
        count, wrong = asyncio.run(read_all(statuses if is_full else statuses[9:11]))
        waits = [asyncio.run(soonest_after(status)) for status in ((429, 503, 500) if is_full else (429,))]
    yield Row(
        bar=12,
        what=f"Retry-After over a real socket, {count} answers: read otherwise than meant",
        figure=f"{len(wrong)} {wrong[:1] or ''}".rstrip(),
        bound="0",
        holds=not wrong and count > 0,
    )
    soonest = min(seconds for seconds, _ in waits)
    yield Row(
        bar=12,
        what="... and `Retry-After: 1` to a whole batcher that is flushed: soonest next request",
        figure=f"{soonest:.3f} s",
        bound=">= 1 s",
        holds=soonest >= 1.0 and all(delivered == 2 for _, delivered in waits),
    )


# An hour at an endpoint where a setting is wrong.


class Held(Struct, frozen=True, kw_only=True):
    """What an hour at such an endpoint came to."""

    requests: int
    soonest: float
    """Seconds between two requests, those aside that were under way together at the beginning."""
    errors: list[str]
    others: int
    held: int


async def hour_of(status: int) -> Held:
    """Push four batches at once and an event every ten seconds, and flush every minute, for an hour."""
    with log_lines() as lines:
        transport = FakeTransport(otherwise=answer(status), latency=0.1)
        batcher = make_batcher(transport, max_in_flight=4)
        async with batcher:
            for _ in range(400):
                batcher.push({"model": "gpt-4o"})
            for number in range(360):
                await asyncio.sleep(10.0)
                batcher.push({"model": "gpt-4o"})
                if number % 6 == 0:
                    await batcher.flush()
            said = list(lines)
            held = batcher.statistics().held
            instants = transport.instants
        together = sum(instant == instants[0] for instant in instants)
    later = instants[together - 1 :]
    return Held(
        requests=len(instants),
        soonest=min(after - before for before, after in itertools.pairwise(later)),
        errors=[text for level, text in said if level >= logging.ERROR],
        others=sum(level < logging.ERROR for level, _ in said),
        held=held,
    )


def expected_advice(status: int) -> str:
    """Return the setting that a log line has to name."""
    return {401: "HH_API_KEY", 403: "API key", 407: "HTTPS_PROXY"}.get(status, "HH_API_URL")


def holding(*, is_full: bool) -> Iterator[Row]:
    held = [status for status in range(300, 600) if expected_class(status) == "hold"]
    statuses = held if is_full else [301, 307, 401, 402, 403, 404, 405, 407, 410]
    hours = {status: run_virtually(functools.partial(hour_of, status)) for status in statuses}
    soonest = min(hour.soonest for hour in hours.values())
    requests = [hour.requests for hour in hours.values()]
    yield Row(
        bar=12,
        what=f"an hour of each of {len(hours)} held statuses: seconds between requests; how many",
        figure=f">= {soonest:.1f}; {min(requests)}-{max(requests)}",
        bound=">= 60; 4 under way at first and <= 60",
        holds=soonest >= MINUTE and max(requests) <= 64 and min(requests) > 50,
    )
    wrong = [
        f"{status}: {hour}"
        for status, hour in hours.items()
        if len(hour.errors) != 1
        or expected_advice(status) not in hour.errors[0]
        or f"HTTP {status}" not in hour.errors[0]
        or hour.others
        or hour.held != 760
    ]
    yield Row(
        bar=12,
        what="... hours without exactly one line, an ERROR that says what to do; or with an event lost",
        figure=f"{len(wrong)} {wrong[:1] or ''}".rstrip(),
        bound="0",
        holds=not wrong,
    )


# Jitter.

DRAWS = 1000
LEAST_P = 0.01


def expected_share(seconds: float, longest: float) -> float:
    """Return the share of back-offs that are no longer than this: full jitter is spread evenly from
    nothing to the longest. The one place that says how they are distributed.
    """
    return min(max(seconds / longest, 0.0), 1.0)


def ks_p_value(shares: Sequence[float]) -> float:
    """Return how likely numbers like these are if they are spread evenly over [0, 1]: the test of
    Kolmogorov and Smirnov, with the correction of Stephens.
    """
    count = len(shares)
    ordered = sorted(shares)
    distance = max(
        max((place + 1) / count - share, share - place / count) for place, share in enumerate(ordered)
    )
    scaled = (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count)) * distance
    if scaled < 0.2:
        return 1.0  # the sum needs too many terms, and differs from 1 by less than a float can tell
    terms = ((-1.0) ** (term - 1) * math.exp(-2.0 * (term * scaled) ** 2) for term in range(1, 101))
    return 2.0 * math.fsum(terms)


def first_retry(seed: int, limits: RetryLimits) -> float:
    """Return the seconds from a 503 to the next attempt, as the engine does it."""
    chance = random.Random(seed)
    rig = Rig(jitter=chance.random, backoff_base=limits.backoff_base, backoff_max=limits.backoff_max)
    rig.push("a")
    rig.flush()
    rig.reply(rig.poll_one(), answer(503))
    wake_at = rig.engine.wake_at()
    assert wake_at is not None
    return wake_at


def jitter() -> Iterator[Row]:
    limits = RetryLimits()
    p_values: list[float] = []
    chance = random.Random(12)
    for failures in (1, 2, 3, 6, 7, 50):
        longest = min(limits.backoff_max, limits.backoff_base * 2.0 ** (failures - 1))
        waits = [backoff(limits, failures, chance.random) for _ in range(DRAWS)]
        p_values.append(ks_p_value([expected_share(each, longest) for each in waits]))
    waits = [first_retry(seed, limits) for seed in range(DRAWS)]
    p_values.append(ks_p_value([expected_share(each, limits.backoff_base) for each in waits]))
    yield Row(
        bar=12,
        what=f"jitter of {len(p_values)} back-offs, {DRAWS:,} draws each, against what it should be: least p",
        figure=f"{min(p_values):.3f}",
        bound=f"> {LEAST_P}",
        holds=min(p_values) > LEAST_P,
    )
