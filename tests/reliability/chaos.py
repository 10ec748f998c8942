"""Conservation under seeded chaos: programs made by chance against a server that does anything by chance.

The batcher is the real one, with its worker and engine, in virtual time; the server is `enemy`, the judge
`checker`. Everything that is left to chance, jitter included, comes from one `random.Random(seed)`: the
same seed is the same run, to the byte. After the chaos the server heals, and then whatever is still held
has to be delivered within a bound.

    python -m tests.reliability.chaos [first seed] [how many] [--processes N] [--steps N] [--hashes]
"""

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import logging
import multiprocessing
import os
import pathlib
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, final

import msgspec
from msgspec import Struct

from honeyhive_batcher import Batcher, ClosedError, EncodeError, Session
from honeyhive_batcher.runtime.lifecycle import Seams
from tests.fakes import numbered_ids
from tests.reliability.checker import ACCEPTED, Fated, Flushed, Limits, Offer, Record, violations
from tests.reliability.enemy import POISON, Climate, Enemy, Weather
from tests.reliability.rows import Row, Size
from tests.virtual_time import now, run_virtually

QUICK_SEEDS = 300
FULL_SEEDS = 20_000
_CHUNK = 100
_PROCESSES = 2

_PROBE = 60.0  # seconds between requests to an endpoint that is held
_LAST_WORDS = 2.0  # seconds beyond its time-out that closing may take: requests end, and the transport
_EPSILON = 1e-6
_MAX_PUTS = 60  # every 64th gives way before its event is taken, and then nobody knows whether it was


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of one seed."""

    seed: int
    violations: list[str]
    trace: str
    """A hash of every request, reply and fate."""
    offered: int
    requests: int
    healing: float
    """Virtual seconds from the healing of the server until nothing was held."""
    bound: float


@final
class Program:
    """One program: its settings, its producers, and what befalls them."""

    def __init__(self, seed: int, steps: int | None = None) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.steps = self.chance.choice((5, 15, 30, 60)) if steps is None else steps
        self.settings = _settings(self.chance)
        self.climate = _climate(self.chance, self.settings)
        self.pause = self.chance.choice((0.01, 0.1, 0.5, 2.0))
        self.poison = self.chance.choice((0.0, 0.0, 0.02, 0.2))
        limits = {name: self.settings[name] for name in Limits.__struct_fields__}
        self.record = Record(Limits(**limits))
        self.enemy = Enemy(self.climate, self.record, self.chance)
        self.complaints: list[str] = []
        self.healing = 0.0
        self.bound = 0.0
        self._marks = itertools.count()
        self._puts = 0
        self._poisoned: set[str] = set()
        self._echoes = self.chance.choice((0, 0, 5))
        self._clumsy = self.chance.choice((0.0, 0.0, 0.3))
        self._new_id = numbered_ids()
        self._last_id = ""
        self._raised_in_before_send = 0
        self._actions: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (30, self._push),
            (8, self._burst),
            (10, self._put),
            (5, self._put_and_cancel),
            (12, self._session),
            (5, self._push_something_odd),
            (4, self._flush),
            (3, self._flush_and_cancel),
            (8, self._look),
            (2, self._close_and_start),
            (1, self._close_twice),
            (1, self._close_and_cancel),
            (1, self._cancel_a_request),
            (1, self._cancel_the_worker),
        ]

    # What is run.

    async def main(self) -> None:
        """The whole life of the batcher."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.complaints.append(f"the loop complains: {context}"))
        self.batcher = self._make_batcher()
        if self._often(0.2):
            await self._burst()
            if self._often(0.2):
                await self._close()
        await self.batcher.start()
        actors = [asyncio.create_task(self._act()) for _ in range(self.chance.choice((1, 2, 4)))]
        if self._often(0.3):
            await asyncio.sleep(self._some_time())
            self.chance.choice(actors).cancel()
        for ended in await asyncio.gather(*actors, return_exceptions=True):
            if isinstance(ended, Exception):
                self.complaints.append(f"a producer was hurt: {ended!r}")
        await self._heal()
        await self._check_fresh_ones()
        await self._close(5.0)
        await asyncio.sleep(0)
        await self._look()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            self.complaints.append(f"{len(left)} tasks are left")
        if "not" in (self.batcher.statistics().last_error or "").split("internal error")[1:]:
            self.complaints.append("the worker failed")

    def outcome(self) -> Outcome:
        """What came of it; the batcher is closed, or never will be."""
        return Outcome(
            seed=self.seed,
            violations=[*self.complaints, *violations(self.record)],
            trace=trace_hash(self.record),
            offered=len(self.record.offers),
            requests=len(self.record.arrivals),
            healing=self.healing,
            bound=self.bound,
        )

    async def _act(self) -> None:
        weights = [weight for weight, _ in self._actions]
        actions = [action for _, action in self._actions]
        while self.steps > 0:
            self.steps -= 1
            (action,) = self.chance.choices(actions, weights)
            await action()
            await asyncio.sleep(self.chance.expovariate(1 / self.pause) if self._often(0.7) else 0.0)

    async def _heal(self) -> None:
        """Have the server heal, and all that is held delivered."""
        batcher, record = self.batcher, self.record
        self.enemy.is_healed = True
        await batcher.start()
        await asyncio.sleep(0)  # what was evicted in this turn is told
        settled = {fated.event_id for fated in record.fates}
        under_way = {name for come in record.arrivals if come.ended is None for name in come.ids}
        refused = self._refused_with_others()
        due = {offer.event_id for offer in record.offers if offer.answer == ACCEPTED} - settled
        held = batcher.statistics().held
        healed_at, self.bound = now(), self._healing_bound(held)
        while batcher.statistics().held and now() < healed_at + self.bound:
            await asyncio.sleep(0.25)
        self.healing = now() - healed_at
        if batcher.statistics().held:
            numbers = batcher.statistics()
            self.complaints.append(f"{numbers.held} events are held {self.bound:g} s after healing: {numbers}")
        due -= under_way | self._poisoned | refused
        refused = self._refused_with_others()
        for fated in record.fates:
            # Evictions are told when the worker happens to look.
            if fated.event_id in due - refused and fated.fate not in {"delivered", "too_large", "evicted"}:
                self.complaints.append(f"{fated.event_id} was held at healing, and is {fated.fate}")

    def _refused_with_others(self) -> set[str]:
        """What was in a refused batch, if refusals may have been too many to find the one to blame."""
        if len(self._poisoned) < 2 and Weather.REFUSING not in self.climate.spells:
            return set()
        refusals = ("HTTP 400", "HTTP 422")
        return {
            name for come in self.record.arrivals if come.reply.startswith(refusals) for name in come.ids
        }

    def _healing_bound(self, held: int) -> float:
        """Seconds: what is under way ends, then the longest wait that somebody may have been told, then
        a retry every half second, and pieces one after another.
        """
        one_request = 2 * self.climate.latency + 0.25
        waits = _PROBE + self.climate.max_retry_after + self.settings["backoff_max"]
        return (
            self.settings["request_timeout"]
            + waits
            + self.settings["flush_interval"]
            + held * (0.5 + 3 * one_request)
        )

    async def _check_fresh_ones(self) -> None:
        """With a server in its right mind nothing waits longer than it must."""
        await asyncio.sleep(self.climate.max_retry_after)  # somebody may have asked for that at the end
        if self.batcher.statistics().endpoint != "healthy" or self.batcher.statistics().held:
            return
        pushed_at, before = now(), len(self.record.arrivals)
        self._offer(self._event())
        longest = self.settings["flush_interval"] + _EPSILON
        await asyncio.sleep(longest)
        if self.record.offers[-1].answer == ACCEPTED and len(self.record.arrivals) == before:
            self.complaints.append(f"what was pushed at {pushed_at:g} s is not sent after {longest:g} s")

    # What it is made of.

    def _make_batcher(self) -> Batcher:
        loop = asyncio.get_running_loop()
        seams = Seams(
            clock=loop.time,
            jitter=self.chance.random,
            new_id=self._make_id,
            transport=lambda _config: self.enemy.connect(),
        )
        return Batcher(
            _seams=seams,
            api_key="hh_test",
            before_send=self._before_send if self._often(0.3) else None,
            on_delivered=lambda ids: self._told(ids, "delivered"),
            on_dropped=lambda ids, reason: self._told(ids, str(reason)),
            on_unconfirmed=lambda ids: self._told(ids, "unconfirmed"),
            **self.settings,
        )

    def _make_id(self) -> str:
        self._last_id = self._new_id()
        return self._last_id

    def _before_send(self, event: Any) -> Any:
        if isinstance(event, dict) and event.get("model") == "secret":
            return None
        if isinstance(event, dict) and event.get("model") == "trap":
            self.record.callbacks_raised += 1
            raise ValueError("a callback of the program's")
        return event

    def _told(self, ids: tuple[str, ...], fate: str) -> None:
        self.record.fates += [Fated(at=now(), event_id=name, fate=fate) for name in ids]
        if self._echoes:
            self._echoes -= 1
            self._offer(self._event())
        if self._often(self._clumsy):
            self.record.callbacks_raised += 1
            raise ValueError("a callback of the program's")

    def _often(self, probability: float) -> bool:
        return probability > 0 and self.chance.random() < probability

    def _some_time(self) -> float:
        return self.chance.choice((0.0, 0.01, 0.3, 1.0, 5.0)) * self.chance.random()

    def _event(self) -> dict[str, Any]:
        """An event as good programs push them, of any size."""
        padding = self.chance.choice((0, 0, 50, 200)) if self._often(0.95) else 3000
        event: dict[str, Any] = {"model": "m", "mark": f"m{next(self._marks)}", "inputs": "x" * padding}
        if self._often(self.poison):
            event["poison"] = True
        return event

    # Producers.

    def _offer(self, event: Any, session: Session | None = None) -> None:
        """Push, and write down what was answered."""
        mark = event["mark"] if isinstance(event, dict) else ""
        self._last_id = ""
        answer = self.batcher.push(event, session=session)
        self._note(event, self._last_id, answer.value, session, mark)

    def _note(self, event: Any, name: str, answer: str, session: Session | None, mark: str) -> None:
        if isinstance(event, dict) and event.get("event_id"):
            name = str(event["event_id"])
        if isinstance(event, dict) and event.get("poison"):
            self._poisoned.add(name)
        self.record.offers.append(
            Offer(
                event_id=name or f"nameless {len(self.record.offers)}",
                answer=answer,
                group=session.session_id if session is not None else "",
                mark=f'"{mark}"'.encode() if mark else b"",
            )
        )

    async def _push(self, session: Session | None = None) -> None:
        self._offer(self._event(), session)

    async def _burst(self) -> None:
        for _ in range(self.chance.choice((2, 5, 12))):
            self._offer(self._event())

    async def _put(self, session: Session | None = None) -> None:
        if self._puts >= _MAX_PUTS:
            return
        self._puts += 1
        event = self._event()
        event["event_id"] = self._new_id()
        timeout = self._some_time() if self._often(0.9) else 60.0
        began = now()
        try:
            answer = (await self.batcher.put(event, session=session, timeout=timeout)).value
        except ClosedError:
            answer = "closed"
        except EncodeError:
            answer = "too_large"
        except TimeoutError:
            answer = "queue_full"
        except asyncio.CancelledError:
            self._note(event, "", "queue_full", session, event["mark"])
            raise
        self._note(event, "", answer, session, event["mark"])
        if now() > began + timeout + _EPSILON:
            self.complaints.append(f"a put with {timeout:g} s took {now() - began:g} s")

    async def _put_and_cancel(self) -> None:
        await self._cancel_soon(self._put())

    async def _session(self) -> None:
        session = self.batcher.session(session_name="s" * self.chance.choice((1, 1, 100)))
        is_bound = self._often(0.5)
        try:
            with session if is_bound else contextlib.nullcontext():
                for _ in range(self.chance.choice((0, 1, 1, 2, 6))):
                    given = None if is_bound else session
                    if self._often(0.2):
                        await self._put_in(session, given)
                    else:
                        self._push_in(session, given)
                    if self._often(0.3):
                        await asyncio.sleep(self._some_time())
                self._end(session)
        finally:
            self._end(session)

    def _push_in(self, session: Session, given: Session | None) -> None:
        event = self._event()
        self._last_id = ""
        answer = self.batcher.push(event, session=given)
        self._note(event, self._last_id, answer.value, session, event["mark"])

    async def _put_in(self, session: Session, given: Session | None) -> None:
        del given
        await self._put(session)

    def _end(self, session: Session) -> None:
        """Close a session, and see from the numbers what became of its closing."""
        if self._often(0.8) and session.outputs is None:
            mark = f"m{next(self._marks)}"
            session.outputs = {"mark": mark, "more": "y" * self.chance.choice((0, 100))}
        before = self.batcher.statistics()
        session.close()
        after = self.batcher.statistics()
        if after.offered == before.offered:
            return
        answers = [
            reason for reason in after.refused if after.refused[reason] != before.refused.get(reason, 0)
        ]
        mark = session.outputs["mark"]
        self._note(None, session.session_id, answers[0] if answers else ACCEPTED, session, mark)

    async def _push_something_odd(self) -> None:
        event: Any = self._event()
        kind = self.chance.randrange(7)
        if kind == 0:
            event["event_id"] = uuid.UUID(int=self.chance.getrandbits(128))
        elif kind == 1:
            event["event_id"] = f"odd {next(self._marks)}"
        elif kind == 2:
            event["inputs"] = {"nan": float("nan"), 5: {1, 2}, "object": object}
        elif kind == 3:
            event["model"] = self.chance.choice(("secret", "trap"))
        elif kind == 4:
            event["event_id"] = None
        elif kind == 5:
            event["inputs"] = "x" * 20_000
        else:
            event = self.chance.choice((7, "text", None, [1]))
        self._offer(event)

    # Watching.

    async def _look(self) -> None:
        self.record.snapshot(self.batcher.statistics(), now())

    async def _flush(self) -> None:
        record = self.record
        timeout = self._some_time() if self._often(0.8) else 30.0
        self.enemy.is_hurried = True
        offers, fates, began = len(record.offers), len(record.fates), now()
        held = self.batcher.statistics().held
        result = await self.batcher.flush(timeout)
        record.flushes.append(
            Flushed(offers=offers, fates=fates, held=held, result=result, fates_after=len(record.fates))
        )
        if now() > began + timeout + _EPSILON:
            self.complaints.append(f"a flush with {timeout:g} s took {now() - began:g} s")

    async def _flush_and_cancel(self) -> None:
        await self._cancel_soon(self._flush())

    async def _cancel_soon(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(doing)
        await asyncio.sleep(self._some_time())
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled() and task.exception() is not None:
            self.complaints.append(f"a cancelled caller was hurt: {task.exception()!r}")

    # Life and death.

    async def _close(self, timeout: float | None = None) -> None:
        self.enemy.is_hurried = True
        timeout = self._some_time() if timeout is None else timeout
        began = now()
        try:
            await self.batcher.aclose(timeout)
        finally:
            if now() > began + timeout + _LAST_WORDS + _EPSILON:
                self.complaints.append(f"closing within {timeout:g} s took {now() - began:g} s")
            await_held = self.batcher.statistics()
            if await_held.held and self.batcher.push(None).value == "closed":
                self.complaints.append(f"closed, with {await_held.held} events held")

    async def _close_and_start(self) -> None:
        await self._close()
        await asyncio.sleep(self._some_time())
        await self.batcher.start()

    async def _close_twice(self) -> None:
        await asyncio.gather(self._close(), self._close())
        await self.batcher.start()

    async def _close_and_cancel(self) -> None:
        await self._cancel_soon(self._close())
        await self.batcher.start()

    async def _cancel_a_request(self) -> None:
        if self.enemy.open:
            self.chance.choice(list(self.enemy.open.values())).cancel()

    async def _cancel_the_worker(self) -> None:
        worker = self.batcher._lifecycle._worker
        if worker is not None and worker.task is not None:
            self.enemy.is_hurried = True
            worker.task.cancel()
            await asyncio.sleep(self._some_time())
            await self.batcher.start()


def _settings(chance: random.Random) -> dict[str, Any]:
    pick = chance.choice
    return {
        "max_queue_events": pick((2, 5, 15, 60)),
        "max_queue_bytes": pick((1500, 8000, 100_000)),
        "overflow": pick(("drop_newest", "drop_oldest")),
        "max_batch_events": pick((1, 2, 5, 10, 10)),
        "max_batch_bytes": pick((1024, 2048, 10_000)),
        "max_event_bytes": pick((500, 4000)),
        "flush_interval": pick((0.0, 0.1, 1.0)),
        "request_timeout": pick((0.5, 2.0, 5.0)),
        "max_in_flight": pick((1, 2, 4, 16)),
        "max_retries": pick((0, 1, 3, 5)),
        "max_elapsed": pick((1.0, 10.0, 120.0)),
        "backoff_base": pick((0.05, 0.5)),
        "backoff_max": pick((1.0, 5.0, 30.0)),
        "on_ambiguous": pick(("retry", "drop")),
        "shutdown_timeout": pick((0.0, 0.5, 5.0)),
    }


def _climate(chance: random.Random, settings: dict[str, Any]) -> Climate:
    spells = chance.choice((0, 1, 3, 6))
    longest = chance.choice((0.5, 5.0, 60.0))
    usual = [weather for weather in Weather if weather is not Weather.REFUSING]
    kinds = list(Weather) if chance.random() < 0.2 else usual
    instants = itertools.accumulate(chance.random() * longest for _ in range(spells))
    return Climate(
        changes=tuple(instants),
        spells=tuple(chance.choice(kinds) for _ in range(spells)),
        faults=chance.choice((0.0, 0.1, 0.4)),
        latency=chance.choice((0.0, 0.01, 0.2)),
        max_body=chance.choice((600, 1500, 10_000, 10_000)),
        max_retry_after=chance.choice((0.5, 5.0, 20.0)),
        request_timeout=settings["request_timeout"],
    )


def trace_hash(record: Record) -> str:
    """Return a hash of every request with its reply, in order, and every fate with its instant."""
    trace = hashlib.sha256()
    for come in record.arrivals:
        line = (come.at, come.run, come.method, come.ids, come.reply, come.retry_after, come.ended_at)
        trace.update(repr(line).encode())
        trace.update(come.body)
    for fated in record.fates:
        trace.update(repr((fated.at, fated.event_id, fated.fate)).encode())
    return trace.hexdigest()


def run_seed(seed: int, steps: int | None = None) -> Outcome:
    """Run one seed."""
    return play(seed, steps).outcome()


def play(seed: int, steps: int | None = None) -> Program:
    """Run one seed, and return all there is to see of it."""
    program = Program(seed, steps)
    logger = logging.getLogger("honeyhive_batcher")
    was_disabled, logger.disabled = logger.disabled, True  # it would tell of every loss
    try:
        run_virtually(program.main)
    except Exception as error:  # a deadlock, a loop that spins, or what the package threw at its host
        program.complaints.append(f"the program ended with {error!r}")
    finally:
        logger.disabled = was_disabled
    return program


# Many seeds.


def run_seeds(first: int, count: int) -> list[Outcome]:
    """Run so many seeds."""
    return [run_seed(seed) for seed in range(first, first + count)]


def run_many(first: int, count: int, processes: int) -> Iterator[Outcome]:
    """Run so many seeds in so many processes, in order."""
    if processes == 1:
        yield from (run_seed(seed) for seed in range(first, first + count))
        return
    starts = range(first, first + count, _CHUNK)
    sizes = [min(_CHUNK, first + count - start) for start in starts]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for outcomes in pool.map(run_seeds, starts, sizes):
            yield from outcomes


def hashes_elsewhere(first: int, count: int) -> list[str]:
    """Return the trace hashes that another process with another hash seed comes to."""
    command = [sys.executable, "-m", "tests.reliability.chaos", str(first), str(count), "--hashes"]
    root = pathlib.Path(__file__).parents[2]
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environ = {**os.environ, "PYTHONHASHSEED": other, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environ, check=True, capture_output=True, text=True)
    return done.stdout.split()


def rows(size: Size) -> Iterator[Row]:
    """Violations, traces that differ, and how long healing took."""
    is_full = size is Size.FULL
    count, again = (FULL_SEEDS, 500) if is_full else (QUICK_SEEDS, 20)
    outcomes = list(run_many(0, count, _PROCESSES if is_full else 1))
    for outcome in outcomes:
        if outcome.violations:
            print(_told_about(outcome), file=sys.stderr)
    wrong = sum(len(outcome.violations) for outcome in outcomes)
    offered = sum(outcome.offered for outcome in outcomes)
    requests = sum(outcome.requests for outcome in outcomes)
    yield Row(
        bar=1,
        what=f"seeded chaos: violations over {count:,} seeds ({offered:,} events, {requests:,} requests)",
        figure=str(wrong),
        bound="0",
        holds=wrong == 0 and len(outcomes) == count,
    )
    traces = [outcome.trace for outcome in outcomes[:again]]
    others = hashes_elsewhere(0, again) if is_full else [run_seed(seed).trace for seed in range(again)]
    differ = sum(one != other for one, other in itertools.zip_longest(traces, others))
    yield Row(
        bar=1,
        what=f"seeded chaos: traces that differ when {again} seeds are run again"
        + (" in another process" if is_full else ""),
        figure=str(differ),
        bound="0",
        holds=differ == 0,
    )
    slowest = max(outcomes, key=lambda outcome: outcome.healing)
    tightest = max(outcomes, key=lambda outcome: outcome.healing / outcome.bound)
    yield Row(
        bar=1,
        what="seeded chaos: longest from healing to nothing held, and its bound (virtual time)",
        figure=f"{slowest.healing:.0f} s",
        bound=f"{slowest.bound:.0f} s (the tightest took {tightest.healing / tightest.bound:.0%} of its own)",
        holds=all(outcome.healing <= outcome.bound for outcome in outcomes),
    )


def _told_about(outcome: Outcome) -> str:
    program = Program(outcome.seed)
    lines = [f"seed {outcome.seed}: python -m tests.reliability.chaos {outcome.seed} 1"]
    lines += [f"  {program.settings}", f"  {program.climate}"]
    return "\n".join([*lines, *(f"  - {violation}" for violation in outcome.violations)])


def main() -> int:
    """Run seeds and print what is wrong with them."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.chaos", description=__doc__)
    parser.add_argument("first", nargs="?", type=int, default=0, help="the first seed")
    parser.add_argument("count", nargs="?", type=int, default=QUICK_SEEDS, help="how many seeds")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, help="the same programs, cut short")
    parser.add_argument("--hashes", action="store_true", help="print nothing but the traces' hashes")
    options = parser.parse_args()
    began, ran, wrong = time.monotonic(), 0, 0
    if options.steps is not None:
        outcomes = (run_seed(options.first + i, options.steps) for i in range(options.count))
    else:
        outcomes = run_many(options.first, options.count, options.processes)
    for outcome in outcomes:
        ran += 1
        if options.hashes:
            print(outcome.trace)
        elif outcome.violations:
            wrong += 1
            print(_told_about(outcome), flush=True)
    if not options.hashes:
        print(f"{ran} seeds, {wrong} of them with violations, {time.monotonic() - began:.1f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
