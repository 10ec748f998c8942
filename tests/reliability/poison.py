"""Poison and oversize: what one bad event, or one limit of the server, costs the others.

A poison event has the server refuse every request that carries it, with a status and not a word about
which one it is. An oversized one is refused with 413. All of it runs over the engine, without a loop.
"""

import asyncio
import logging
import math
import random
from collections.abc import Collection, Iterator
from typing import Any

from honeyhive_batcher.core.fragment import SESSIONLESS
from honeyhive_batcher.core.model import Reply
from tests.core.rig import Rig, Sent, Server, answer, event, session
from tests.fakes import FakeTransport, fates, make_batcher
from tests.reliability.log_lines import log_lines
from tests.reliability.rows import Row, Size
from tests.virtual_time import run_virtually

BATCH = 1000
MOST_REQUESTS = 21
"""For one poison in a thousand: two for each of the ten halvings, and the first."""
MB = 1_000_000
EVERYTHING_REFUSED = "HTTP 400 for every event, so not for one of them"


def rows(size: Size) -> Iterator[Row]:
    """Yield what poison and oversize cost."""
    yield from one_poison(range(BATCH) if size is Size.FULL else [*range(0, BATCH, 97), BATCH - 1])
    yield from some_poisons(200 if size is Size.FULL else 3)
    yield from refused_everything()
    yield from limit_of_the_server()
    yield from giant()
    yield from bodies(2000 if size is Size.FULL else 40)
    yield from unencodable()


def refusing(bad: Collection[str], status: int = 400) -> Server:
    """Refuse every request that carries one of these."""
    poison = frozenset(bad)
    return lambda sent: answer(status) if poison.intersection(sent.ids) else sent.all_named


class Search:
    """One batch with poison at these places, from its first request to the last fate."""

    def __init__(self, places: Collection[int], status: int = 400) -> None:
        rig = Rig(max_batch_events=BATCH)
        names = rig.push_many(BATCH)
        poison = {names[place] for place in places}
        rig.serve(refusing(poison, status))
        rig.assert_settled()
        self.requests = len(rig.sent)
        self.delivered = len(rig.with_fate("delivered"))
        self.is_exact = (
            rig.with_fate("rejected") == poison and rig.with_fate("delivered") == set(names) - poison
        )


def one_poison(places: Collection[int]) -> Iterator[Row]:
    for status in (400, 422):
        found = [Search([place], status) for place in places]
        worst = max(search.requests for search in found)
        exact = sum(search.is_exact for search in found)
        yield Row(
            bar=11,
            what=f"one poison among {BATCH:,}, opaque {status}, at {len(found):,} places: most requests",
            figure=f"{worst}",
            bound=f"<= {MOST_REQUESTS}",
            holds=worst <= MOST_REQUESTS,
        )
        yield Row(
            bar=11,
            what=f"... and it alone is dropped, {BATCH - 1} delivered (opaque {status})",
            figure=f"{exact:,} of {len(found):,}",
            bound="all",
            holds=exact == len(found),
        )


def some_poisons(seeds: int) -> Iterator[Row]:
    """Poison anywhere, and where it most looks as if everything were refused: at the head, and behind."""
    for poisons in (2, 10):
        chance = random.Random(poisons)
        scattered = [chance.sample(range(BATCH), poisons) for _ in range(seeds)]
        lined_up = [[*range(poisons - 1), chance.randrange(poisons, BATCH)] for _ in range(seeds)]
        found = [Search(places) for places in (*scattered, *lined_up)]
        lost = sum(BATCH - poisons - search.delivered for search in found)
        worst = max(search.requests for search in found)
        most = poisons * (MOST_REQUESTS - 1) + 1
        yield Row(
            bar=11,
            what=f"{poisons} poisons among {BATCH:,}, {len(found):,} times: good events lost; most requests",
            figure=f"{lost}; {worst}",
            bound=f"0; <= {most}",
            holds=lost == 0 and worst <= most and all(search.is_exact for search in found),
        )


def refused_everything() -> Iterator[Row]:
    """A server that refuses everything, through ten batches of a thousand, and then no longer."""
    rig = Rig(max_batch_events=BATCH, max_in_flight=1)
    costs: list[int] = []
    for number in range(10):
        before = len(rig.sent)
        names = rig.push_many(BATCH, f"batch{number}-")
        rig.serve(refusing(names))
        costs.append(len(rig.sent) - before)
    error = rig.statistics.last_error
    rejected = len(rig.with_fate("rejected"))
    before = len(rig.sent)
    names = rig.push_many(BATCH, "healed-")
    rig.serve(refusing([names[0], names[-1]]))
    recovered = len(rig.with_fate("delivered"))
    rig.assert_settled()
    yield Row(
        bar=11,
        what=f"a server that refuses everything: requests for the first batch of {BATCH:,}, for each later",
        figure=f"{costs[0]}; {max(costs[1:])}",
        bound=f"<= {MOST_REQUESTS}; <= 3",
        holds=costs[0] <= MOST_REQUESTS and max(costs[1:]) <= 3 and rejected == 10 * BATCH,
    )
    yield Row(
        bar=11,
        what=f"... of the first batch after it is well again, {BATCH:,} with two poisons, delivered",
        figure=f"{recovered}",
        bound=f"{BATCH - 2}",
        holds=recovered == BATCH - 2,
    )
    yield Row(
        bar=11,
        what="... what `last_error` says of it",
        figure=str(error),
        bound=EVERYTHING_REFUSED,
        holds=error == EVERYTHING_REFUSED,
    )
    lines = run_virtually(_log_of_refusals)
    said = [text for _, text in lines if EVERYTHING_REFUSED in text]
    yield Row(
        bar=11,
        what="... log lines in ten minutes of it: all; those which say that it refuses everything",
        figure=f"{len(lines)}; {len(said)}",
        bound="<= 11; >= 1",
        holds=len(lines) <= 11 and len(said) >= 1,
    )


async def _log_of_refusals() -> list[tuple[int, str]]:
    with log_lines() as lines:
        transport = FakeTransport(otherwise=answer(400))
        batcher = make_batcher(transport)
        async with batcher:
            for _ in range(60):
                for _ in range(100):
                    batcher.push({"model": "gpt-4o"})
                await batcher.flush()
                await asyncio.sleep(10.0)
        return [line for line in lines if line[0] >= logging.WARNING]


def limit_of_the_server() -> Iterator[Row]:
    """A server that takes 1 MB a request, of which it says nothing until it is passed."""
    in_flight = 4
    rig = Rig(max_batch_events=10_000, max_in_flight=in_flight)
    over: list[int] = []

    def server(sent: Sent) -> Reply:
        if len(sent.body) > MB:
            over.append(len(sent.body))
            return answer(413)
        return sent.all_named

    for number in range(2000):
        rig.push(f"first-{number}", padding=10_000)
    rig.serve(server)
    discovery = len(over)
    for number in range(2000):
        rig.push(f"later-{number}", padding=10_000)
    rig.serve(server)
    delivered = len(rig.with_fate("delivered"))
    rig.assert_settled()
    most = in_flight * (1 + 2 + 4)  # 4 MiB, its halves and its quarters, of each batch that is under way
    yield Row(
        bar=11,
        what="a limit of 1 MB found by 413: requests over it in the first 20 MB; in the next 20 MB; lost",
        figure=f"{discovery}; {len(over) - discovery}; {4000 - delivered}",
        bound=f"<= {most}; 0; 0",
        holds=0 < discovery <= most and len(over) == discovery and delivered == 4000,
    )


def giant() -> Iterator[Row]:
    """One event of 30 MB: refused by default; with limits that let it in, dropped alone."""
    rig = Rig()
    small = rig.push_many(250)
    rig.push("giant", padding=30 * MB)
    rig.serve(healthy)
    delivered = len(rig.with_fate("delivered"))
    refused = rig.statistics.refused
    rig.assert_settled()
    yield Row(
        bar=11,
        what="one event of 30 MB beside 250, default limits: refused at the push; others delivered",
        figure=f"{refused}; {delivered}",
        bound="{'too_large': 1}; 250",
        holds=refused == {"too_large": 1} and delivered == len(small),
    )
    rig = Rig(max_event_bytes=40 * MB, max_batch_bytes=40 * MB)
    small = rig.push_many(250)
    rig.push("giant", padding=30 * MB)
    small += rig.push_many(250, "later-")
    rig.serve(lambda sent: answer(413) if len(sent.body) > MB else sent.all_named)
    uploads = sum("giant" in sent.ids for sent in rig.sent)
    most = 1 + math.ceil(math.log2(rig.config.batch.max_batch_events))
    delivered = len(rig.with_fate("delivered"))
    rig.assert_settled()
    yield Row(
        bar=11,
        what="... let in, and 413 above 1 MB: its fate; how often it is sent; of 500 others delivered",
        figure=f"{rig.fate('giant')}; {uploads}; {delivered}",
        bound=f"too_large; <= {most}; 500",
        holds=rig.fate("giant") == "too_large" and 0 < uploads <= most and delivered == len(small),
    )


def healthy(sent: Sent) -> Reply:
    return sent.all_named


def bodies(seeds: int) -> Iterator[Row]:
    """Events of any size, sessions and their ends, and a server of moods: no body is ever too long."""
    longest = 0.0
    requests = nearly_full = 0
    for seed in range(seeds):
        chance = random.Random(seed)
        rig = Rig(max_batch_bytes=1024 + chance.randrange(2000), max_batch_events=chance.choice([3, 10, 100]))
        keys = [
            SESSIONLESS,
            *(session(f"s{number}", b'{"x":"%b"}' % (b"x" * chance.randrange(900))) for number in range(3)),
        ]
        for number in range(60):
            data = event(f"e{number}", chance.choice([0, 10, 100, chance.randrange(3000)]))
            rig.push_bytes(f"e{number}", data, chance.choice(keys))
        for key in keys[1:]:
            rig.close_session(key, b'{"y":"%b"}' % (b"y" * chance.randrange(900)))
        rig.serve(_moody(chance))
        rig.assert_settled()
        sizes = [len(sent.body) / rig.config.batch.max_batch_bytes for sent in rig.sent]
        longest = max(longest, *sizes)
        nearly_full += sum(size > 0.9 for size in sizes)
        requests += len(sizes)
    yield Row(
        bar=11,
        what=f"longest of {requests:,} bodies, events of any size, sessions, refusals: of `max_batch_bytes`",
        figure=f"{longest:.1%}",
        bound="<= 100 %",
        holds=longest <= 1.0 and nearly_full > 0,
    )


def _moody(chance: random.Random) -> Server:
    def server(sent: Sent) -> Reply:
        return sent.all_named if chance.random() < 0.7 else answer(chance.choice([400, 413, 422, 503]))

    return server


class Hostile:
    """What no encoder takes, and what raises when it is looked at."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]  # an object that nothing can look into
        raise RuntimeError("not to be looked at")

    def __repr__(self) -> str:
        raise RuntimeError("nor to be shown")


def unencodable() -> Iterator[Row]:
    """What cannot be encoded travels as a marker or is refused at once; it never costs its batch."""
    delivered, refused = run_virtually(_push_what_cannot_be_encoded)
    yield Row(
        bar=11,
        what="200 good events pushed between 200 with objects that no encoder takes, and 50 non-events",
        figure=f"{delivered} delivered; {refused}",
        bound="400 delivered; {'not_an_event': 50}",
        holds=delivered == 400 and refused == {"not_an_event": 50},
    )


async def _push_what_cannot_be_encoded() -> tuple[int, dict[str, int]]:
    cycle: dict[str, Any] = {}
    cycle["itself"] = cycle
    odd = [Hostile(), object(), cycle, {Hostile(): 1}, float("nan"), "\ud800", lambda: None, type, 1 << 80]
    with log_lines():
        async with make_batcher(FakeTransport()) as batcher:
            for number in range(200):
                batcher.push({"model": "gpt-4o"})
                batcher.push({"model": "gpt-4o", "inputs": {"odd": odd[number % len(odd)]}})
                if number % 4 == 0:
                    batcher.push(odd[number % 2])
            await batcher.flush()
            return fates(batcher)["delivered"], batcher.statistics().refused
