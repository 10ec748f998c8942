"""How long a body may be: what the settings allow, or less once a server has found one too long."""

from typing import final

_TEST_INTERVAL = 60.0
"""Seconds between two tests of a limit that was learned."""


@final
class BodyLimit:
    """The limit in force. One that was learned may come from something in between that is gone, and a test
    costs one request: it doubles every minute that passes without another such answer.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        """Bytes of the largest body to cut."""
        self._most = max_bytes
        self._grows_at = float("inf")

    def lower(self, max_bytes: int, now: float) -> None:
        """Cut no larger bodies from `now` on, because the server found one too large."""
        self.max_bytes = min(self.max_bytes, max(1, max_bytes))
        self._grows_at = now + _TEST_INTERVAL

    def grow(self, now: float) -> None:
        """Put a limit that was learned to the test, if it is time."""
        if now >= self._grows_at:
            self.max_bytes = min(self._most, 2 * self.max_bytes)
            self._grows_at = float("inf") if self.max_bytes == self._most else now + _TEST_INTERVAL
