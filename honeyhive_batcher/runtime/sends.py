"""The requests under way: each has a task of its own, from its beginning to its reply."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, final

import msgspec

from honeyhive_batcher.core import wire
from honeyhive_batcher.core.model import Attempt, Failure, Reply
from honeyhive_batcher.runtime.pricing import Pricing
from honeyhive_batcher.runtime.quiet import quiet_context
from honeyhive_batcher.runtime.transport import Transport


def quiet_task(
    loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None], name: str
) -> asyncio.Task[None]:
    """Return a task of the batcher's own, of which asyncio has nothing to tell."""
    task = loop.create_task(main, name=f"honeyhive_batcher.{name}", context=quiet_context())
    # Of a loop that is closed around it a batcher tells in its own words.
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio has no door for it
    return task


@final
class Sends:
    """Begins requests in one event loop, and reports the reply to each, whatever happens to its task.

    Invariant: an attempt that was begun is reported once, or taken back.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        replied: Callable[[Attempt, Reply], None],
        pricing: Pricing,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._replied = replied
        self._pricing = pricing
        self._tasks: set[asyncio.Task[None]] = set()
        self._unbegun: dict[Attempt, asyncio.Task[None]] = {}  # of which nothing is sent yet
        self._open: dict[Attempt, Reply | None] = {}  # of which something may be

    def begin(self, attempt: Attempt) -> None:
        """Send a request for this attempt."""
        task = quiet_task(self._loop, self._send(attempt), "send")
        task.add_done_callback(lambda task: self._ended(attempt, task))
        # Whatever strikes before this line: the task finds that nobody knows it, and sends nothing.
        self._unbegun[attempt] = task
        self._tasks.add(task)

    def has(self, attempt: Attempt) -> bool:
        """Return whether this attempt was begun and will be reported."""
        return attempt in self._open or attempt in self._unbegun

    def last_word(self, attempt: Attempt) -> Reply:
        """Return all that will ever be known of an attempt when nothing moves any more."""
        sent = attempt in self._open
        return self._open.get(attempt) or Failure(cause="the run was given up", unsent=not sent)

    def unsent(self) -> list[Attempt]:
        """Return the attempts of which surely nothing is sent yet."""
        return list(self._unbegun)

    def cancel(self) -> None:
        """Cancel all that are under way; their replies are failures."""
        for task in self._tasks:
            task.cancel()

    async def ended(self, timeout: float) -> None:
        """Wait until all have ended, at most so many seconds. Raises only a cancellation."""
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=timeout)

    def take_back(self) -> None:
        """Forget those of which surely nothing was sent: the loop has not turned since they were begun.
        They are not reported, and send nothing should it ever turn again.
        """
        unbegun, self._unbegun = self._unbegun, {}
        if self._loop.is_closed():  # lest Python says that something was never awaited, or never retrieved
            for task in unbegun.values():
                main = task.get_coro()
                assert isinstance(main, Coroutine)
                main.close()
            for task in self._tasks:
                _look_at(task)

    async def _send(self, attempt: Attempt) -> None:
        reply: Reply
        await self._pricing.price(attempt.batch)
        if attempt not in self._unbegun:
            return  # taken back
        self._open[attempt] = None  # first: a Ctrl-C between the two lines must not find it in neither
        del self._unbegun[attempt]
        try:
            request = wire.build_request(attempt.batch)
            if attempt.plain:
                request = msgspec.structs.replace(request, plain=True)
            reply = await self._transport.send(request)
        except asyncio.CancelledError:
            reply = Failure(cause="cancelled", unsent=False)  # most such requests have arrived: measured
        except Exception as error:  # a transport of somebody else's; ours does not raise
            reply = Failure(cause=f"the transport raised {type(error).__name__}", unsent=False)
        self._open[attempt] = reply
        self._report(attempt)

    def _report(self, attempt: Attempt) -> None:
        self._replied(attempt, self._open[attempt] or Failure(cause="interrupted", unsent=False))
        del self._open[attempt]  # last: until then an interruption leaves it to `_ended`

    def _ended(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        _look_at(task)
        if self._unbegun.pop(attempt, None) is not None:  # cancelled before its first step: it never ran
            self._open.pop(attempt, None)
            self._replied(attempt, Failure(cause="cancelled before it began", unsent=True))
        elif attempt in self._open:
            # A Ctrl-C: the program's business, and it ends the loop. But the worker lives on to its end.
            self._report(attempt)


def _look_at(task: asyncio.Task[None]) -> None:
    """Have what a task ended with known, lest Python says that nobody wanted to know."""
    if task.done() and not task.cancelled():
        task.exception()
