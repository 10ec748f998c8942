"""A program made by chance: its settings, its producers, what befalls them, and a server like `enemy`.

Everything that is left to chance, jitter included, comes from one `random.Random(seed)`: the same seed is
the same run, to the byte. After the chaos the server heals, and then whatever is still held has to be
delivered within a bound.
"""

import asyncio
import contextlib
import itertools
import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, final

from honeyhive_batcher import Batcher, ClosedError, EncodeError, Session
from honeyhive_batcher.runtime.seams import Seams
from tests.fakes import NumberedIds
from tests.reliability.checker import ACCEPTED, Fated, Flushed, Limits, Offer, Record
from tests.reliability.enemy import Climate, Enemy, Weather
from tests.virtual_time import now

_PROBE = 60.0  # seconds between requests to an endpoint that is held
_LONGEST_CATCHING_UP, _LONGEST_GAP = 160.0, 2.5  # seconds for a backlog, and between two batches of it
_LAST_WORDS = 2.0  # seconds beyond its time-out that closing may take: requests end, and the transport
_EPSILON = 1e-6
_MAX_PUTS = 60  # every 64th gives way before its event is taken, and then nobody knows whether it was


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
        self._ids = NumberedIds()
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
        loop.set_exception_handler(
            lambda _, context: self.complaints.append(f"the loop complains: {context}")
        )
        self.batcher = self._make_batcher()
        if self._often(0.2):
            await self._burst()
            if self._often(0.2):
                await self._close()
                if self._often(0.5):
                    await self._look()
                    return  # it was never started
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
        due = {offer.event_id for offer in record.offers if offer.answer == ACCEPTED} - settled
        held = batcher.statistics().held
        healed_at, self.bound = now(), self._healing_bound(held)
        while batcher.statistics().held and now() < healed_at + self.bound:  # noqa: ASYNC110 - virtual
            await asyncio.sleep(0.25)
        self.healing = now() - healed_at
        if batcher.statistics().held:
            numbers = batcher.statistics()
            self.complaints.append(
                f"{numbers.held} events are held {self.bound:g} s after healing: {numbers}"
            )
        due -= under_way | self._poisoned
        due -= self._refused_with_others() | self._too_large()
        for fated in record.fates:
            # Evictions are told when the worker happens to look.
            if fated.event_id in due and fated.fate not in {"delivered", "evicted"}:
                self.complaints.append(f"{fated.event_id} was held at healing, and is {fated.fate}")

    def _refused_with_others(self) -> set[str]:
        """What was in a refused batch, if refusals may have been too many to find the one to blame."""
        if len(self._poisoned) < 2 and Weather.REFUSING not in self.climate.spells:
            return set()
        refusals = ("HTTP 400", "HTTP 422")
        return {name for come in self.record.arrivals if come.reply.startswith(refusals) for name in come.ids}

    def _too_large(self) -> set[str]:
        """What the server found too large by itself."""
        return {
            come.ids[0]
            for come in self.record.arrivals
            if come.reply.startswith("HTTP 413") and len(come.ids) == 1
        }

    def _healing_bound(self, held: int) -> float:
        """Seconds: what is under way ends, then the longest wait that somebody may have been told, then
        a retry every half second, and pieces one after another, at the pace of one client among many.
        """
        one_request = 2 * self.climate.latency + 0.25
        catching_up = min(_LONGEST_CATCHING_UP, _LONGEST_GAP * held)
        waits: float = _PROBE + self.climate.max_retry_after + self.settings["backoff_max"]
        waits += self.settings["request_timeout"] + self.settings["flush_interval"]
        return waits + catching_up + held * (0.5 + 3 * one_request)

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
            ids=self,
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

    def next(self) -> bytes:
        """Make an id, and remember it."""
        made = self._ids.next()
        self._last_id = made.decode()
        return made

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

    def _offer(self, event: Any, session: Session | None = None, *, is_bound: bool = False) -> None:
        """Push, and write down what was answered."""
        mark = event["mark"] if isinstance(event, dict) else ""
        self._last_id = ""
        answer = self.batcher.push(event, session=None if is_bound else session)
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
                at=now(),
                run=self.enemy.runs,
            )
        )

    async def _push(self) -> None:
        self._offer(self._event())

    async def _burst(self) -> None:
        for _ in range(self.chance.choice((2, 5, 12))):
            self._offer(self._event())

    async def _put(self, session: Session | None = None) -> None:
        if self._puts >= _MAX_PUTS:
            return
        self._puts += 1
        event = self._event()
        event["event_id"] = self._ids.next().decode()
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
            if self.batcher.statistics().held == 0 and self._quiet_since(began):
                self.complaints.append(f"a put timed out at {now():g} s with nothing in the queue")
        except asyncio.CancelledError:
            self._note(event, "", "queue_full", session, event["mark"])
            raise
        self._note(event, "", answer, session, event["mark"])
        if now() > began + timeout + _EPSILON:
            self.complaints.append(f"a put with {timeout:g} s took {now() - began:g} s")

    def _quiet_since(self, instant: float) -> bool:
        """Whether nothing has got its fate just now; `instant` is when somebody began to wait for that."""
        last = self.record.fates[-1].at if self.record.fates else instant
        return now() > max(last, instant) + _EPSILON

    async def _put_and_cancel(self) -> None:
        await self._cancel_soon(self._put())

    async def _session(self) -> None:
        session = self.batcher.session(session_name="s" * self.chance.choice((1, 1, 100)))
        is_bound = self._often(0.5)
        try:
            with session if is_bound else contextlib.nullcontext():
                for _ in range(self.chance.choice((0, 1, 1, 2, 6))):
                    if self._often(0.2):
                        await self._put(session)
                    else:
                        self._offer(self._event(), session, is_bound=is_bound)
                    if self._often(0.3):
                        await asyncio.sleep(self._some_time())
                self._end(session)
        finally:
            self._end(session)

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
        is_done = result.held == 0 and self.settings["overflow"] == "drop_newest"
        if is_done and now() > began and self._quiet_since(began):
            self.complaints.append(f"a flush returned at {now():g} s, long after all was settled")
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
        began, run = now(), self.enemy.runs
        try:
            await self.batcher.aclose(timeout)
        finally:
            if now() > began + timeout + _LAST_WORDS + _EPSILON:
                self.complaints.append(f"closing within {timeout:g} s took {now() - began:g} s")
            held = self.batcher.statistics().held
            if held and self.enemy.runs == run and not self.batcher._intake.is_open:
                self.complaints.append(f"closed, with {held} events held")

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
    kinds = list(Weather) if chance.random() < 0.3 else usual
    instants = itertools.accumulate(chance.random() * longest for _ in range(spells))
    return Climate(
        changes=tuple(instants),
        spells=tuple(chance.choice(kinds) for _ in range(spells)),
        faults=chance.choice((0.0, 0.1, 0.4)),
        latency=chance.choice((0.0, 0.01, 0.2)),
        max_body=chance.choice((600, 1500, 10_000, 10_000)),
        knows_ids=chance.random() < 0.3,
        max_retry_after=chance.choice((0.5, 5.0, 20.0)),
        request_timeout=settings["request_timeout"],
    )
