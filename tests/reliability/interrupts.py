"""A Ctrl-C that strikes wherever one can strike in the package, while events change hands.

CPython looks for signals when a function begins, when a loop goes round, and after a call. A program uses a
batcher until it is closed, and is run once for every such place in `core/` and `runtime/` that it comes to:
there `KeyboardInterrupt` is raised, as a second Ctrl-C does under `asyncio.run`.
"""

import asyncio
import dis
import functools
import gc
import itertools
import logging
import queue
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import honeyhive_batcher
from honeyhive_batcher import Batcher
from honeyhive_batcher.core.model import Failure, Reply, Response
from honeyhive_batcher.runtime.seams import Seams
from tests.fakes import FakeTransport
from tests.reliability.rows import Row, Size

_PACKAGE = Path(honeyhive_batcher.__file__).parent
_FOLDERS = tuple(str(_PACKAGE / name) for name in ("core", "runtime"))
_EVENTS, _MAX_BATCH_EVENTS = 7, 2
_HANGS = 20.0
"""Seconds after which a program is taken to hang. It takes hundredths."""


_LOOKS_FOR_SIGNALS = {"RESUME", "JUMP_BACKWARD", "CALL", "CALL_KW", "CALL_FUNCTION_EX"}


@functools.cache
def places(code: CodeType) -> frozenset[int]:
    """Return the offsets in `code` before which a signal may strike.

    An exception that is raised there is handled as one that the instruction before it raises; where another
    handler would be in charge (the end of a `with` block), it would show what cannot happen.
    """
    handlers = [(entry.start, entry.end, entry.target) for entry in dis._parse_exception_table(code)]  # type: ignore[attr-defined]

    def handler(offset: int) -> int | None:
        return next((target for start, end, target in handlers if start <= offset < end), None)

    steps = list(dis.get_instructions(code))
    return frozenset(
        step.offset
        for before, step in itertools.pairwise(steps)
        if before.opname in _LOOKS_FOR_SIGNALS and handler(before.offset) == handler(step.offset)
    )


class Interrupt:
    """Raises `KeyboardInterrupt` at one of the places that a thread comes to, counted from 0."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.place = ""
        """Where it struck; empty as long as it has not."""

    def arm(self) -> None:
        """Begin to count. Frames that have begun before are not looked into."""
        sys.settrace(self._called)

    def disarm(self) -> None:
        """Strike no more."""
        sys.settrace(None)

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_FOLDERS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._traced

    def _traced(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "opcode" and frame.f_lasti in places(frame.f_code):
            self._left -= 1
            if self._left < 0:
                sys.settrace(None)
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self._traced


def interrupted_at(number: int) -> tuple[Interrupt, Batcher]:
    """Run the program and interrupt it at that place."""
    interrupt = Interrupt(number)

    async def refuse_once() -> Reply:
        return Failure(cause="connection refused", unsent=True)

    transport = FakeTransport(refuse_once, Response(status=500), latency=0.001)
    batcher = Batcher(
        api_key="hh_test",
        _seams=Seams(transport=lambda _: transport),
        max_batch_events=_MAX_BATCH_EVENTS,
        flush_interval=0.0,
        backoff_base=0.001,
        backoff_max=0.002,
        shutdown_timeout=0.3,
        on_delivered=lambda _: None,
    )

    async def main() -> None:
        async with batcher:
            interrupt.arm()
            with batcher.session(session_name="chat") as session:
                for number in range(_EVENTS):
                    batcher.push({"number": number}, session=session if number % 2 else None)
                session.outputs = {"answer": "Honey."}
            await batcher.flush(timeout=1)
            batcher.push({"number": _EVENTS})
        interrupt.disarm()

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    finally:
        interrupt.disarm()
    return interrupt, batcher


def everywhere(every: int) -> Iterator[tuple[str, Counter[str], str]]:
    """Interrupt at every so many places; yield where, what became of the events, and what is wrong."""
    for number in itertools.count(step=every):
        done: queue.SimpleQueue[tuple[Interrupt, Batcher]] = queue.SimpleQueue()
        threading.Thread(target=_run, args=(number, done), daemon=True).start()
        try:
            interrupt, batcher = done.get(timeout=_HANGS)
        except queue.Empty:
            yield f"place {number}", Counter(), "it hangs"
            return
        gc.collect()  # here, and not in the midst of the next program, where it would be struck in its stead
        if not interrupt.place:
            return
        now = batcher.statistics()
        fates = Counter({"delivered": now.delivered, "unconfirmed": now.unconfirmed, **now.dropped})
        wrong = ""
        if now.held or now.held_bytes or now.accepted != fates.total():
            wrong = f"the books are not closed: {now}"
        elif now.dropped or not 0 <= now.unconfirmed <= _MAX_BATCH_EVENTS:
            wrong = f"it costs more than a batch: {now}"
        elif "closed" not in repr(batcher):
            wrong = f"it runs on: {batcher!r}"
        yield interrupt.place, fates, wrong


def _run(number: int, done: "queue.SimpleQueue[tuple[Interrupt, Batcher]]") -> None:
    done.put(interrupted_at(number))


def rows(size: Size) -> Iterator[Row]:
    """Interrupt everywhere, or at some places."""
    every = 1 if size is Size.FULL else 29
    runs, fates, faults = 0, Counter[str](), []
    logger = logging.getLogger("honeyhive_batcher")
    was_disabled, logger.disabled = logger.disabled, True  # it would tell of every loss
    gc.disable()
    try:
        with warnings.catch_warnings():
            # What Python says of a coroutine that an interruption kept from being awaited is true.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            # And what the batcher says of a close that was interrupted before its first step.
            warnings.filterwarnings("ignore", "a Batcher was not closed, with 0 events", ResourceWarning)
            for place, came, wrong in everywhere(every):
                runs += 1
                fates += came
                faults += [f"{place}: {wrong}"] if wrong else []
    finally:
        gc.enable()
        logger.disabled = was_disabled
    told = ", ".join(f"{events:,} {fate}" for fate, events in sorted(fates.items()))
    where = "every place" if every == 1 else f"every {every}th place"
    yield Row(
        bar=15,
        what=f"a second Ctrl-C at {where} in core and runtime where one can strike: programs that hang, have "
        "an event without a fate, or more than one batch that is not delivered, but unconfirmed",
        figure="; ".join((f"{len(faults)} of {runs:,} ({told})", *faults[:2])),
        bound="0",
        holds=not faults and runs > 50,
    )
