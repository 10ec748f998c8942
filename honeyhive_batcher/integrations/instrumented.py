"""Has one client of a provider tell of its calls, for as long as that is wanted.

OpenAI's and Anthropic's clients, of every version, make all their calls by their own method `request`, with
what they are about to send in `options`. It is shadowed on the one client; nothing of the package is changed,
nor imported.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, final

from honeyhive_batcher.claims import claim, claim_on
from honeyhive_batcher.errors import ConfigError
from honeyhive_batcher.integrations.dialect import Dialect
from honeyhive_batcher.integrations.exchange import Exchange
from honeyhive_batcher.integrations.failures import count_failure
from honeyhive_batcher.integrations.values import stated
from honeyhive_batcher.producer import Producer, latest_started
from honeyhive_batcher.runtime.reporter import say

Client = TypeVar("Client")

_NAME = "the adapter of a client"
_KEPT_AS = "_honeyhive_batcher_instrument"
_has_warned = False


def put_on(
    client: Any,
    batcher: Producer | None,
    *,
    dialects: Mapping[str, Dialect],
    provider: str,
) -> None:
    """Have a client tell `batcher` of its calls, and no other any longer; also copies that are made of it.

    `batcher` is None for the one that was started last when a call is made. `dialects` are by the end of an
    endpoint's path, longer ones first.

    Raises:
        ConfigError: This is no such client.
    """
    instrument: _Instrument | None = getattr(client, "__dict__", {}).get(_KEPT_AS)
    if instrument is None:
        if not callable(getattr(client, "request", None)) or not hasattr(client, "with_options"):
            raise ConfigError(f"client is not valid: Expected a client, got {type(client).__name__}")
        instrument = _Instrument(client)
    instrument.batcher, instrument.dialects, instrument.provider = batcher, dialects, provider
    instrument.is_on = True


def uninstrument(client: Client) -> Client:
    """Have a client tell of its calls no longer, and return it. Calls that are under way are told all the
    same, and copies that were made of it still tell.
    """
    instrument: _Instrument | None = getattr(client, "__dict__", {}).get(_KEPT_AS)
    if instrument is not None:
        instrument.is_on = False
        instrument.remove(client)
    return client


@final
class _Instrument:
    def __init__(self, client: Any) -> None:
        self.batcher: Producer | None = None
        self.dialects: Mapping[str, Dialect] = {}
        self.provider = ""
        self.is_on = False
        self._before: dict[str, Any] = {}
        self._shadows: dict[str, Any] = {}
        # Not by its `request` alone: that may be a plain function of the user's that returns what is awaited.
        self._is_async = inspect.iscoroutinefunction(client.request) or hasattr(client, "__aenter__")
        self._shadow(client, "request", self._awaited if self._is_async else self._called)
        self._shadow(client, "copy", self._copied)
        self._shadow(client, "with_options", self._copied)
        self._shadow(client, "__getstate__", self._stated)  # for `copy.copy`
        vars(client)[_KEPT_AS] = self

    def remove(self, client: Any) -> None:
        """Take away what shadows the client's own methods, if nobody has shadowed it in turn."""
        if any(vars(client).get(name) is not shadow for name, shadow in self._shadows.items()):
            return  # it stays, and does nothing
        for name in (_KEPT_AS, *self._shadows):
            del vars(client)[name]
        vars(client).update(self._before)

    def _shadow(self, client: Any, name: str, shadow_of: Callable[[Any], Any]) -> None:
        if name in vars(client):
            self._before[name] = vars(client)[name]
        own = getattr(client, name)
        self._shadows[name] = vars(client)[name] = functools.wraps(own)(shadow_of(own))

    def _called(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def request(*arguments: Any, **named: Any) -> Any:
            exchange = self._begin(arguments, named)
            if exchange is None:
                return own(*arguments, **named)
            try:
                with claim(exchange.batcher):  # some instrumentations are below
                    answer = own(*arguments, **named)
            except BaseException as error:
                exchange.end(error)
                raise
            exchange.answered(answer)
            return answer

        return request

    def _awaited(self, own: Callable[..., Any]) -> Callable[..., Any]:
        async def request(*arguments: Any, **named: Any) -> Any:
            exchange = self._begin(arguments, named)
            if exchange is None:
                return await own(*arguments, **named)
            try:
                with claim(exchange.batcher):
                    answer = await own(*arguments, **named)
            except BaseException as error:
                exchange.end(error)
                raise
            exchange.answered(answer)
            return answer

        return request

    def _copied(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def copy(*arguments: Any, **named: Any) -> Any:
            client = own(*arguments, **named)
            if self.is_on:
                put_on(client, self.batcher, dialects=self.dialects, provider=self.provider)
            return client

        return copy

    def _stated(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def state() -> Any:
            """Return what a copy is made of: it is not instrumented, lest it calls what this client would."""
            held = own()
            if not isinstance(held, dict):
                return held  # of a class with a way of its own
            return {
                name: each for name, each in held.items() if name not in self._shadows and name != _KEPT_AS
            } | self._before

        return state

    def _begin(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Exchange | None:
        """Return what hears of this call; None if it is no model call, or somebody else tells of it."""
        batcher = (self.batcher or latest_started()) if self.is_on else None
        try:
            options: Any = named["options"] if "options" in named else arguments[1]
            path = str(options.url).partition("?")[0]
            dialect = next((each for end, each in self.dialects.items() if path.endswith(end)), None)
            if dialect is None or options.method.lower() != "post":
                return None
            if batcher is None:
                if self.is_on:
                    _warn()
                return None
            around = claim_on(batcher)
            if around is not None and not around.is_deaf:
                return None
            return Exchange(
                batcher,
                dialect,
                body=stated({**(options.json_data or {}), **(getattr(options, "extra_json", None) or {})}),
                provider=self.provider,
                claim=around,
                is_async=self._is_async,
            )
        except Exception as error:  # a request of another shape
            if batcher is not None:
                count_failure(batcher, _NAME, error)
            return None


def _warn() -> None:
    global _has_warned  # noqa: PLW0603 - once for the process
    if not _has_warned:
        _has_warned = True
        text = "an instrumented client made a call, but no batcher has been started: it is not told"
        say(logging.WARNING, text, kind="no_batcher")
