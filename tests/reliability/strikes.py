"""Cancellation at every turn of a real loop with real sockets, by everything that cancels.

A program uses all verbs of a batcher against a server that does badly and then well. It is run once for
every turn of the loop that it takes, and in that turn the strike comes.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import anyio

from honeyhive_batcher import Batcher, ClosedError
from tests.integration.raw_server import Connection, RawServer
from tests.reliability.child import descriptors

_PATIENCE = 10.0
"""Seconds after which a program is taken to wait for ever. It takes hundredths."""


class TurningLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, which says when it turns."""

    def __init__(self) -> None:
        super().__init__()
        self.before_turn: Callable[[], None] = lambda: None

    def _run_once(self) -> None:
        self.before_turn()
        super()._run_once()  # type: ignore[misc]  # private, and so unknown to the type checker


class Case:
    """One run of a program: what strikes it, when, and what came of it."""

    def __init__(self, turns: frozenset[int], found: "Found", content: str) -> None:
        self._turns = turns
        self.content = content
        self._turn = 0
        self._strike: Callable[[], object] = lambda: None
        self.stage = "nothing sent"
        self.found = found
        self.was_reached = False
        self.fates: dict[str, str] = {}
        self.accepted: set[str] = set()
        self.server: RawServer
        self.batcher: Batcher

    def arm(self, strike: Callable[[], object]) -> None:
        """Count the turns from here on."""
        self._strike = strike
        self._loop().before_turn = self._count

    def disarm(self) -> None:
        """Let nothing strike any more."""
        self._loop().before_turn = lambda: None

    def _loop(self) -> TurningLoop:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, TurningLoop)
        return loop

    def _count(self) -> None:
        if self._turn in self._turns:
            self.was_reached |= self._turn == min(self._turns)
            self.found.stages[self.stage] += 1
            self._strike()
        self._turn += 1

    def expect(self, *, that: bool, words: str) -> None:
        """Note what is not as it should be."""
        if not that:
            self.found.wrong.append(f"turn {sorted(self._turns)}, {self.stage}: {words}")

    def settle(self, fate: str) -> Callable[..., None]:
        """Return a callback that notes a fate."""

        def note(event_ids: tuple[str, ...], *_: object) -> None:
            for event_id in event_ids:
                self.expect(that=event_id not in self.fates, words=f"{event_id} has two fates")
                self.fates[event_id] = fate

        return note


class Found:
    """What came of all runs of a program."""

    def __init__(self) -> None:
        self.runs = 0
        self.stages: Counter[str] = Counter()
        self.fates: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.said: list[str] = []
        """What asyncio, aiohttp or Python had to complain of."""


Strike: TypeAlias = Callable[[Case], Awaitable[None]]
"""Runs the program of a case, and what is to strike it."""


# The server and the program.


def _staged(case: Case, *, is_good: bool) -> Callable[[Connection], Awaitable[bool]]:
    """Answer a request in several pieces, or reset the connection when it has come; note how far it is."""

    async def serve(connection: Connection) -> bool:
        case.stage = "connected"
        head = await connection.head()
        case.stage = "sending the body"
        await asyncio.sleep(0)
        ids = await connection.body(head)
        case.stage = "waiting for the answer"
        await asyncio.sleep(0)
        if not is_good:
            case.stage = "connection lost"
            connection.reset()
            return False
        body = json.dumps({"success": True, "event_ids": ids}).encode()
        pieces = (f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body[:9], body[9:])
        for piece in pieces:
            await connection.write(piece)
            case.stage = "reading the answer"
            await asyncio.sleep(0)
        case.stage = "answered"
        return True

    return serve


async def program(case: Case) -> None:
    """Use every verb."""

    def event(number: int) -> dict[str, Any]:
        return {"event_id": f"event-{number}", "inputs": {"text": case.content}}

    batcher = case.batcher
    async with batcher:
        for number in range(4):
            if batcher.push(event(number)):
                case.accepted.add(f"event-{number}")
        for number in range(4, 7):  # there is no room for all of them
            if await batcher.put(event(number)):
                case.accepted.add(f"event-{number}")
        await batcher.flush(timeout=5)
        if batcher.push(event(7)):
            case.accepted.add("event-7")


def _of_the_batcher() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("honeyhive_batcher")]


async def _watched(case: Case, main: asyncio.Task[None]) -> None:
    _, pending = await asyncio.wait((main,), timeout=_PATIENCE)
    case.expect(that=not pending, words="it waits for ever")
    case.disarm()
    main.cancel()


# What strikes.


def cancelled(*, caller: bool, batcher: bool) -> Strike:
    """Cancel the caller's task, those of the batcher, or all of them."""

    async def strike(case: Case) -> None:
        main = asyncio.create_task(program(case))

        has_struck = False

        def cancel() -> None:
            nonlocal has_struck
            for task in _of_the_batcher() if batcher else []:
                task.cancel()
            has_struck |= caller and main.cancel()

        case.arm(cancel)
        await _watched(case, main)
        await asyncio.gather(main, return_exceptions=True)
        # With tasks of the batcher cancelled, a `put` may find it closed before the caller's own comes.
        fine = main.cancelled() == has_struck and (main.cancelled() or main.exception() is None)
        case.expect(that=fine or (batcher and _is_closed(main)), words=f"{main!r}")

    return strike


def _is_closed(main: asyncio.Task[None]) -> bool:
    """Whether a `put` found the batcher closed, as it is when its tasks were cancelled."""
    return not main.cancelled() and isinstance(main.exception(), ClosedError)


async def scope_cancelled(case: Case) -> None:
    """Cancel a scope of anyio around it, which cancels again and again."""

    async def scoped() -> None:
        with scope:
            await program(case)

    scope = anyio.CancelScope()
    main = asyncio.create_task(scoped())
    case.arm(scope.cancel)
    await _watched(case, main)
    await asyncio.gather(main, return_exceptions=True)
    case.expect(that=not main.cancelled() and main.exception() is None, words=f"{main!r}")


async def timed_out(case: Case) -> None:
    """Let an `asyncio.timeout` around it run out."""
    limit = asyncio.timeout(None)

    async def limited() -> None:
        with contextlib.suppress(TimeoutError):
            async with limit:
                await program(case)
            case.expect(that=not limit.expired(), words="the time-out came out as a success")

    def run_out() -> None:
        with contextlib.suppress(RuntimeError):  # not entered yet, or left
            limit.reschedule(0)

    main = asyncio.create_task(limited())
    case.arm(run_out)
    await _watched(case, main)
    await asyncio.gather(main, return_exceptions=True)
    case.expect(that=not main.cancelled() and main.exception() is None, words=f"{main!r}")


async def sibling_failed(case: Case) -> None:
    """Let another task of its `TaskGroup` raise."""
    strikes = asyncio.Event()

    async def sibling() -> None:
        await strikes.wait()
        raise ZeroDivisionError

    async def grouped() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                failing = group.create_task(sibling())
                await program(case)
                failing.cancel()
        except* ZeroDivisionError:
            pass

    main = asyncio.create_task(grouped())
    case.arm(strikes.set)
    await _watched(case, main)
    await asyncio.gather(main, return_exceptions=True)
    case.expect(that=not main.cancelled() and main.exception() is None, words=f"{main!r}")


async def main_ended(case: Case) -> None:
    """Return from the main coroutine, so that `asyncio.run` cancels everything that is left."""
    strikes = asyncio.Event()
    main = asyncio.create_task(program(case))
    case.arm(strikes.set)
    ends = asyncio.create_task(strikes.wait())
    await asyncio.wait((main, ends), timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    case.disarm()
    case.expect(that=main.done() or ends.done(), words="it waits for ever")
    ends.cancel()


# Every turn.


def everywhere(
    strike: Strike, *, gaps: tuple[int, ...] = (0,), every: int = 1, event_bytes: int = 30_000
) -> Found:
    """Run the program once for every turn it takes (or every so many), with strikes in that turn and so
    many turns later; return what was found. Of 100,000 bytes an event a request is more than the kernel
    takes at once.
    """
    found = Found()
    gc.collect()
    gc.freeze()  # everything older is left out of the many collections
    try:
        for turn in itertools.count(step=every):
            case = Case(frozenset(turn + gap for gap in gaps), found, "x" * event_bytes)
            with _complaints(found):
                _run(strike, case)
            if not case.was_reached:
                return found
            found.runs += 1
    finally:
        gc.unfreeze()
    raise AssertionError


def _run(strike: Strike, case: Case) -> None:
    before = descriptors()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: case.found.said.append(repr(context))
        )
        case.batcher = Batcher(
            api_key="hh_test",
            base_url=f"http://127.0.0.1:{case.server.port}",
            max_queue_events=5,
            max_batch_events=2,
            max_in_flight=2,
            flush_interval=0,
            backoff_base=0.001,
            backoff_max=0.001,
            shutdown_timeout=_PATIENCE / 2,
            on_delivered=case.settle("delivered"),
            on_dropped=case.settle("dropped"),
            on_unconfirmed=case.settle("unconfirmed"),
        )
        await strike(case)
        if strike is not main_ended:
            case.expect(that=not _of_the_batcher(), words="the program ended, and a task is left")
            await case.batcher.aclose()

    async def served() -> None:
        async with _server(case):
            await main()

    with asyncio.Runner(loop_factory=TurningLoop) as runner:
        if strike is not main_ended:
            runner.run(served())
        else:  # the server must not end with the loop
            with _elsewhere(_server(case)):
                runner.run(main())
                runner.close()
                asyncio.run(case.batcher.aclose())
    _judge(case)
    gc.collect()
    case.expect(that=descriptors() == before, words="a socket is left")


def _server(case: Case) -> RawServer:
    good = (_staged(case, is_good=True) for _ in range(99))
    case.server = RawServer(_staged(case, is_good=False), *good)
    return case.server


@contextlib.contextmanager
def _elsewhere(server: RawServer) -> Iterator[None]:
    """Run a server in a loop and a thread of its own."""

    async def stop() -> None:
        while server._tasks:  # until it has seen the end of every connection
            await asyncio.wait(server._tasks)
        await server.__aexit__(None, None, None)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(_PATIENCE)
        yield
        asyncio.run_coroutine_threadsafe(stop(), loop).result(_PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _judge(case: Case) -> None:
    """Compare, event by event, what was accepted, what the server has, and what the batcher says."""
    numbers = case.batcher.statistics()
    case.found.fates.update(case.fates.values())
    # A `put` that is struck in the turn in which it gets its room has taken its event, and could not say so.
    unheard = set(case.fates) - case.accepted
    case.expect(that=case.accepted <= set(case.fates), words="an event has no fate")
    case.expect(that=not unheard, words=f"an event was taken unheard: {sorted(unheard)}")
    lost = set(case.fates.values()) - {"delivered"}
    case.expect(that=not lost, words="what could be delivered was not")
    case.expect(that=numbers.held == 0, words=f"{numbers.held} are held")
    case.expect(that=numbers.accepted == len(case.fates), words="the numbers do not add up")
    case.expect(that=numbers.callback_errors == 0, words="a callback could not be called")
    taken = set(case.server.taken)
    for event_id, fate in case.fates.items():
        lied = (fate == "delivered") != (event_id in taken) and fate != "unconfirmed"
        case.expect(that=not lied, words=f"{event_id} is {fate}, and the server knows better")


@contextlib.contextmanager
def _complaints(found: Found) -> Iterator[None]:
    """Collect every way in which something can be said that nobody asked for."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.said.append(f"{record.name}: {record.getMessage()}")

    ear = Ear(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("asyncio", "aiohttp")]
    hook = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: found.said.append(repr(unraisable))
    own = logging.getLogger("honeyhive_batcher")
    level = own.level
    own.setLevel(logging.ERROR)  # losses are expected; a failure is not, and is heard
    for logger in (*loggers, own):
        logger.addHandler(ear)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
            gc.collect()
        found.said += [str(warning.message) for warning in warned]
    finally:
        own.setLevel(level)
        sys.unraisablehook = hook
        for logger in (*loggers, own):
            logger.removeHandler(ear)
