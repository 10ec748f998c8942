"""A value that shows itself nowhere: not in logs, not in dumps, not among the variables of a traceback."""

import re
from collections.abc import Callable
from typing import Any, Never, Self, final

_MASK = "hh_****"


@final
class Secret:
    """Holds an API key. All that shows an object (`repr`, `str`, `format`) shows a mask.

    It is no `str`, so that nothing takes its characters in passing: encoding it as JSON and pickling it
    raise `TypeError`, and only `reveal` gives it out.
    """

    __slots__ = ("_open",)

    def __init__(self, value: object) -> None:
        # In a closure: what dumps all attributes of an object comes upon a function.
        self._open: Callable[[], object] = lambda: value

    @property
    def is_sendable(self) -> bool:
        """Whether it is text that a header can carry as it is."""
        value = self._open()
        return isinstance(value, str) and re.fullmatch(r"[\x21-\x7e]+", value) is not None

    def reveal(self) -> str:
        """Return the secret itself, for the one header that carries it."""
        value = self._open()
        assert isinstance(value, str)
        return str.__str__(value)

    def __repr__(self) -> str:
        return repr(_MASK)

    def __str__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return format(_MASK, spec)

    def __eq__(self, other: object) -> bool:
        return self._open() == other._open() if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._open())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("a secret is not pickled")


def seal(settings: Any) -> None:
    """Put the API key among `settings` under cover, in place, of whatever type it is.

    First of all, while nothing can fail: error reporters show the local variables of every frame that
    an exception comes through, and `settings` are such a variable.
    """
    key = settings.get("api_key")
    if key is not None and not isinstance(key, Secret):
        settings["api_key"] = Secret(key)
