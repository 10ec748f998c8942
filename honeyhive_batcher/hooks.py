"""The callbacks of an application."""

import inspect
from collections.abc import Callable
from typing import Any, Self

from msgspec import Struct

from honeyhive_batcher.errors import ConfigError


class Hooks(Struct, frozen=True, kw_only=True):
    """What the application wants to see or change. One that raises is counted and hurts nothing."""

    before_send: Callable[[Any], Any] | None = None
    """`(event) -> event | None`, called inside `push`; None, or raising, keeps the event from being sent."""
    before_session: Callable[[dict[str, Any]], Any] | None = None
    """`(properties) -> properties | None`, called when a session begins, and when it ends with what was set
    since; None, or raising, keeps all of it from being sent but the session's id."""
    cost: Callable[[dict[str, Any]], float | None] | None = None
    """`(event) -> dollars | None`, called in a thread before an event without a cost is sent. If it has a
    method `check_installed`, that is called now; a method `warm`, in the thread when the batcher starts."""
    on_delivered: Callable[[tuple[str, ...]], object] | None = None
    """`(event_ids)`, called on the loop after the server confirmed them."""
    on_dropped: Callable[[tuple[str, ...], str], object] | None = None
    """`(event_ids, reason)`, called on the loop."""
    on_unconfirmed: Callable[[tuple[str, ...]], object] | None = None
    """`(event_ids)`, called on the loop: nobody knows whether the server has them."""

    @classmethod
    def taken_from(cls, options: dict[str, Any]) -> Self:
        """Take the callbacks out of what a batcher was given, and leave the settings."""
        return cls(**{name: options.pop(name) for name in cls.__struct_fields__ if name in options})

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise ConfigError(f"{name} is not callable")
            if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__):
                raise ConfigError(f"{name} is called, not awaited: it has to be a plain function")
        check = getattr(self.cost, "check_installed", None)
        if check is not None:
            check()
