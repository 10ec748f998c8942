"""One run: lines are read, sent with backpressure and settled; it stops when going on is in vain."""

import asyncio
import time
from contextlib import aclosing
from typing import Any, Final, final
from urllib.parse import urlsplit

from msgspec import Struct

from honeyhive_batcher.batcher import Batcher
from honeyhive_batcher.cli.screen import Screen, tell
from honeyhive_batcher.cli.send.event import LineError, read_event
from honeyhive_batcher.cli.send.fates import Fates
from honeyhive_batcher.cli.send.lines import Line
from honeyhive_batcher.cli.send.pace import Pace
from honeyhive_batcher.cli.send.rejects import Rejects
from honeyhive_batcher.cli.send.source import ReadError, Source
from honeyhive_batcher.cli.send.summary import how_to_go_on, summary, unconfirmed_lines
from honeyhive_batcher.cli.signals import exit_code, signals_caught
from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import DropReason, Endpoint
from honeyhive_batcher.errors import ClosedError, EncodeError
from honeyhive_batcher.runtime.reporter import advice

_LOOK_INTERVAL: Final = 0.1
"""Seconds between two looks at how things are."""

_LAST_CHANCE: Final = 1.0
"""Seconds for what is on its way to a server that the command has given up."""

_DONE, _SOME_LOST, _UNREACHABLE = 0, 1, 3


class Stop(Struct, frozen=True, kw_only=True):
    """Why a run ends before the end of the file, and with which exit code."""

    sentence: str
    code: int


@final
class Sending:
    """One run of the command."""

    def __init__(
        self,
        source: Source,
        rejects: Rejects,
        screen: Screen,
        *,
        skip: int,
        wait: float,
        settings: dict[str, Any],
    ) -> None:
        """Get ready.

        Raises:
            ConfigError: A setting is wrong.
        """
        self._source = source
        self._rejects = rejects
        self._screen = screen
        self._skip = skip
        self._wait = wait
        self._fates = Fates(rejects, self._report, lambda: self._batcher.statistics().last_error)
        self._batcher = Batcher.from_env(
            on_delivered=self._fates.on_delivered,
            on_dropped=self._fates.on_dropped,
            on_unconfirmed=self._fates.on_unconfirmed,
            **settings,
        )
        config = self._batcher.config
        self._host = urlsplit(config.endpoint.base_url).netloc
        self._shutdown_timeout = config.shutdown.shutdown_timeout
        self._pace = Pace(source, self._fates, time.monotonic())
        self._delivered = 0
        self._well_at = time.monotonic()  # when nothing was amiss the last time
        self._stopped = asyncio.Event()
        self._signal: int | None = None
        self._closings: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Send all, say what became of it, and return the exit code."""
        started_at = time.monotonic()
        if self._batcher.config.endpoint.test_mode:
            self._screen.say("HH_TEST_MODE is set: nothing leaves this machine")
        with signals_caught(self._on_signal):
            async with self._batcher:
                feeding = asyncio.create_task(self._feed())
                try:
                    stop = await self._watch(feeding)
                finally:
                    feeding.cancel()
                    await asyncio.wait((feeding,))
                if not feeding.cancelled():
                    feeding.result()  # a bug of ours in there must not pass unseen
                if stop is not None and stop.code == _UNREACHABLE:
                    await self._batcher.aclose(min(_LAST_CHANCE, self._shutdown_timeout))
        self._screen.close()
        return self._end(stop, time.monotonic() - started_at)

    # Feeding.

    async def _feed(self) -> Stop | None:
        """Put every line, and wait until all of them have a fate."""
        max_bytes = self._batcher.config.batch.max_event_bytes
        try:
            async with aclosing(self._source.lines(max_bytes)) as chunks:
                async for lines in chunks:
                    for line in lines:
                        await self._take(line, max_bytes)
                    await asyncio.sleep(0)  # `put` gives others their turn only when it waits
        except ReadError as error:
            await self._batcher.flush()
            return Stop(
                sentence=f"cannot read {self._source.name} on after line {self._fates.read}: {error}",
                code=_SOME_LOST,
            )
        except ClosedError:
            return None  # the worker failed, as `_watch` sees
        await self._batcher.flush()
        return None

    async def _take(self, line: Line, max_bytes: int) -> None:
        fates = self._fates
        number, data = line.number, line.data
        fates.read = number
        if number <= self._skip:
            fates.skipped += line.begins
            if number == self._skip:
                self._pace.skipped()
        elif not (line.begins and line.ends):
            self._reject_piece(line, max_bytes)
        elif not data or data.isspace():
            fates.blank += 1
        else:
            try:
                event_id, event = read_event(data, is_first=number == 1)
            except LineError as error:
                fates.reject(number, data, str(error))
                return
            fates.put(event_id, number, data)
            try:
                await self._batcher.put(event)
            except EncodeError as error:
                fates.reject_put(event_id, str(error))

    def _reject_piece(self, line: Line, max_bytes: int) -> None:
        if line.begins:
            self._fates.rejected += 1
            self._report(line.number, f"longer than {max_bytes} bytes")
        self._rejects.write(line.data, b"\n" if line.ends else b"")

    def _report(self, number: int, reason: str) -> None:
        self._screen.say(f"{self._source.name}:{number}: {reason}")

    # Watching.

    async def _watch(self, feeding: "asyncio.Task[Stop | None]") -> Stop | None:
        """Wait for the end; show how it goes, and return why it has to stop before, if it has to."""
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            while True:
                done, _ = await asyncio.wait(
                    (feeding, stopped), timeout=_LOOK_INTERVAL, return_when=asyncio.FIRST_COMPLETED
                )
                now = self._batcher.statistics()
                stop = self._reason_to_stop(now, time.monotonic())
                if stop is not None or stopped in done:
                    return stop
                if feeding in done:
                    return feeding.result()
                is_amiss = now.endpoint == Endpoint.BACKING_OFF
                trouble = now.last_error if is_amiss else None
                self._screen.show(self._pace.text(time.monotonic(), trouble), self._pace.fraction())
        finally:
            stopped.cancel()

    def _reason_to_stop(self, statistics: Statistics, now: float) -> Stop | None:
        is_silent = statistics.endpoint == Endpoint.UNKNOWN and statistics.in_flight > 0
        is_amiss = statistics.held > 0 and (statistics.endpoint == Endpoint.BACKING_OFF or is_silent)
        if not is_amiss or statistics.delivered != self._delivered:
            self._well_at = now
        self._delivered = statistics.delivered
        cause = statistics.last_error or "no answer"
        if statistics.endpoint == Endpoint.HELD:
            return Stop(sentence=f"{self._host} answers {cause}: {advice(cause)}", code=_UNREACHABLE)
        if now - self._well_at > self._wait:
            return Stop(
                sentence=f"{self._host} has taken nothing for {self._wait:g} s ({cause}); check the network "
                "and --base-url or HH_API_URL, or allow it more time with --wait",
                code=_UNREACHABLE,
            )
        if DropReason.INTERNAL in statistics.dropped:
            return Stop(
                sentence=f"the batcher failed ({cause}); this is a bug of honeyhive_batcher", code=_SOME_LOST
            )
        if self._rejects.failure is not None:
            return Stop(
                sentence=f"cannot write {self._rejects.path}: {self._rejects.failure}; choose another file "
                "with --rejected",
                code=_SOME_LOST,
            )
        return None

    def _on_signal(self, number: int) -> None:
        """Stop at the first signal, and wait for nothing more at the second."""
        if self._signal is None:
            self._signal = number
            self._screen.say(
                f"stopping: {self._fates.pending:,} lines are on their way and get at most "
                f"{self._shutdown_timeout:g} s; once more stops at once"
            )
            self._stopped.set()
        else:
            self._closings.append(asyncio.create_task(self._batcher.aclose(0)))

    # The end.

    def _end(self, stop: Stop | None, elapsed: float) -> int:
        fates = self._fates
        if stop is not None:
            self._screen.say(f"honeyhive-batcher send: {stop.sentence}")
        if fates.unconfirmed:
            self._screen.say(unconfirmed_lines(fates))
        if stop is not None or self._signal is not None or fates.settled_through() < fates.read:
            self._screen.say(how_to_go_on(fates))
        tell(*summary(fates, self._rejects, elapsed))
        if self._signal is not None:
            return exit_code(self._signal)
        if stop is not None:
            return stop.code
        return _SOME_LOST if fates.rejected or fates.unconfirmed or fates.not_sent or fates.pending else _DONE
