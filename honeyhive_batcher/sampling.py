"""Which sessions are sent, when not all are: the same ones in every process."""

from collections.abc import Callable
from typing import final

_SCALE = 1 << 64


@final
class Sample:
    """A share of the sessions, and of the events that belong to none.

    What a rate keeps, every higher rate keeps, too.
    """

    def __init__(self, rate: float, chance: Callable[[], float]) -> None:
        # Here, and not above: it takes a millisecond, and most programs send everything.
        from hashlib import blake2b  # noqa: PLC0415

        self._rate = rate
        self._chance = chance
        self._hash = blake2b

    def keeps(self, name: str | None) -> bool:
        """Return whether what has this name is sent. What has none is sent or not by chance."""
        if name is None:
            return self._chance() < self._rate
        digest = self._hash(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest) < self._rate * _SCALE
