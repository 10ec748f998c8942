"""Times a model call by hand, for clients that no adapter knows."""

import asyncio
import contextvars
import functools
import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast, final

from honeyhive_batcher.claims import Claim, claim_on, enclosed, enter, leave
from honeyhive_batcher.core.model import Admission
from honeyhive_batcher.events import ModelEvent
from honeyhive_batcher.producer import Producer
from honeyhive_batcher.session import Session

P = ParamSpec("P")
R = TypeVar("R")

_FIELDS = frozenset(ModelEvent.__struct_fields__)
_JSON = (str, int, float, bool, list, tuple, dict)
_NO_ERRORS = (GeneratorExit, StopIteration, StopAsyncIteration)
"""What leaves a block without a failure of the call: its reader had enough."""
_RAISED = (Exception, asyncio.CancelledError)
"""What a strange value may raise when it is looked at. A cancellation is its own: nothing is awaited."""


@final
class ModelCall:
    """One model call: from entering to leaving it, by `with` or `async with`; then one event is pushed.

    Every field of `ModelEvent` may be set as an attribute until the end: `call.response`, `call.usage`,
    `call.cost`, `call.metadata` and so on. `start_time`, `end_time` (Unix milliseconds) and `duration`
    (milliseconds, by a clock that is never set) are stamped where they are not given. An exception that
    leaves the block is recorded as `error`, and goes on; it never raises one of its own. The event belongs
    to the session that is bound where the call begins.

    As a decorator, of a function, a coroutine function or a generator of either kind, each call of the
    function is one. What the function returns becomes `response` where that is not set, and its argument
    `messages`, if it has one, `messages`; of a generator the texts that it yields, joined, or the list of
    what it yields. A generator that is closed before its end has `metadata["incomplete"]`; what is sent or
    thrown into it does not reach the function.

    What an instrumented client (`honeyhive_batcher.integrations`) hears of a call inside becomes a part of
    this event, for what was not set by hand; of several calls the last one does, and the others are events of
    their own. Within another adapter's call, as of LangChain's, that one tells, and this pushes nothing.

    Make one for each call: it is not for use by two at once.
    """

    response: Any
    usage: Any
    cost: float | None
    error: str | None
    messages: Any
    model: str
    provider: str
    metadata: Any
    metrics: Any
    feedback: Any
    user_properties: Any
    hyperparameters: Any
    tools: Any
    tool_choice: Any
    response_format: Any
    duration: float
    start_time: float
    end_time: float

    def __init__(self, batcher: Producer, fields: dict[str, Any]) -> None:
        self._batcher = batcher
        self._fields = fields
        self._context = contextvars.Context()
        self._claim = Claim(batcher, is_deaf=True)
        self._is_silent = False
        self._began_at = 0.0
        self._began_time = 0.0

    def __enter__(self) -> Self:
        vars(self).update({name: value for name, value in self._fields.items() if name in _FIELDS})
        self._context = contextvars.copy_context()  # with the session that is bound here
        around = claim_on(self._batcher)
        self._is_silent = around is not None and not around.is_deaf
        self._claim = Claim(self._batcher, is_deaf=True)
        enter(self._claim)
        self._began_time = time.time()
        self._began_at = time.perf_counter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leave(self._claim)
        self._claim.close()
        if self._is_silent:
            return
        took = 1e3 * (time.perf_counter() - self._began_at)
        began = 1e3 * self._began_time
        # Its type is named: without that HoneyHive's first documentation applies, by which a call that
        # failed could not be told, because it has no `response` and no `usage`.
        mine: dict[str, Any] = {"event_type": "model", "start_time": began, "end_time": began + took}
        mine["duration"] = took
        if isinstance(exc, _NO_ERRORS):
            self.mark_incomplete()
        elif exc is not None:
            mine["error"] = described(exc)
        given = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        heard = self._claim.heard or {}
        event = {**heard, **mine, **self._fields, **given}
        metadata = event.get("metadata")
        if "metadata" in heard and isinstance(metadata, dict):
            event["metadata"] = {**heard["metadata"], **metadata}
        self._context.run(self._batcher.push, event)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def mark_incomplete(self) -> None:
        """Say in the event's metadata that the answer was not read to its end."""
        metadata = getattr(self, "metadata", None)
        self.metadata = {**(metadata if isinstance(metadata, dict) else {}), "incomplete": True}

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: each of its calls is a model call."""
        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def streamed(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
                with self._of(function, args, kwargs) as call:
                    parts: list[Any] = []
                    stream = function(*args, **kwargs)
                    try:
                        async for part in call.awaited_parts(stream):
                            parts.append(part)
                            yield part
                    finally:
                        call.take_all(parts)
                        await stream.aclose()

            return cast("Callable[P, R]", streamed)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self._of(function, args, kwargs) as call:
                    answer = await function(*args, **kwargs)
                    call.take(answer)
                    return answer

            return cast("Callable[P, R]", awaited)
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def iterated(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
                with self._of(function, args, kwargs) as call:
                    parts: list[Any] = []
                    stream = function(*args, **kwargs)
                    try:
                        for part in call.parts(stream):
                            parts.append(part)
                            yield part
                    finally:
                        call.take_all(parts)
                        stream.close()

            return cast("Callable[P, R]", iterated)

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._of(function, args, kwargs) as call:
                answer = function(*args, **kwargs)
                call.take(answer)
                return answer

        return called

    def _of(self, function: Callable[..., Any], args: Any, kwargs: Any) -> "ModelCall":
        """Return a model call for one call of a decorated function."""
        fields = dict(self._fields)
        if "messages" not in fields:
            try:
                messages = inspect.signature(function).bind_partial(*args, **kwargs).arguments.get("messages")
            except _RAISED:  # or it is called wrongly, and will say so itself
                messages = None
            if isinstance(messages, list):
                fields["messages"] = messages
        return ModelCall(self._batcher, fields)

    def take(self, answer: Any) -> None:
        """Have this for the response, unless there is one, if JSON has a word for it."""
        try:
            if not hasattr(self, "response") and (isinstance(answer, _JSON) or hasattr(answer, "model_dump")):
                self.response = answer
        except _RAISED:
            return

    def take_all(self, parts: list[Any]) -> None:
        """Do the same with what a generator has yielded: texts are joined."""
        try:
            self.take("".join(parts) if all(isinstance(part, str) for part in parts) else parts)
        except _RAISED:
            return

    # The claim holds while the function runs. Between the parts the code of their reader does, with calls of
    # its own.

    def parts(self, stream: Generator[Any, Any, Any]) -> Generator[Any, None, None]:
        """Yield what a generator yields."""
        leave(self._claim)
        while True:
            with enclosed(self._claim):
                try:
                    part = next(stream)
                except StopIteration:
                    return
            yield part

    async def awaited_parts(self, stream: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, None]:
        """Yield what an asynchronous generator yields."""
        leave(self._claim)
        while True:
            with enclosed(self._claim):
                try:
                    part = await anext(stream)
                except StopAsyncIteration:
                    return
            yield part


class TimesCalls(ABC):
    """What offers `model_call`."""

    @abstractmethod
    def push(self, event: object, *, session: Session | None = None) -> Admission:
        """See `Batcher.push`."""

    def model_call(self, **fields: Any) -> ModelCall:
        """Return what times one model call, as `with`, `async with` or a decorator; see `ModelCall`.

        `fields` are those of `ModelEvent`, and others: the route is open. Never raises.
        """
        return ModelCall(self, fields)


def described(error: BaseException) -> str:
    """Return what an event says of an exception: its kind and its words. Never raises."""
    name = type(error).__name__
    try:
        return f"{name}: {error}" if str(error) else name
    except _RAISED:
        return name
