"""Event ids: random UUIDs, made a few hundred at a time.

`str(uuid.uuid4())` costs more than encoding an event; taken from a pool, an id costs a tenth of it.
"""

import os
from typing import final

_POOL = 256


@final
class IdPool:
    """Makes random UUIDs (version 4, RFC 9562). Safe in any thread, and in a forked child."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        if hasattr(os, "register_at_fork"):
            ids = self._ids
            os.register_at_fork(after_in_child=ids.clear)  # parent and child must not share ids

    def __call__(self) -> str:
        """Return an id that nobody had before."""
        try:
            return self._ids.pop()
        except IndexError:
            pass
        digits = os.urandom(16 * _POOL).hex()
        made = [_uuid4(digits[at : at + 32]) for at in range(0, len(digits), 32)]
        own = made.pop()  # before others can take it
        self._ids += made
        return own


def _uuid4(digits: str) -> str:
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


new_id = IdPool()
