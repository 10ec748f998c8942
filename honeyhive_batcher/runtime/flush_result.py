"""The answer of `flush`."""

from msgspec import Struct


class FlushResult(Struct, frozen=True, kw_only=True):
    """What became of the events that were held when `flush` was called. True only when `ok`."""

    ok: bool
    """Whether the server confirmed every one of them."""
    delivered: int
    """Confirmed by the server."""
    dropped: int
    """Surely not delivered; `Statistics.dropped` has the reasons."""
    unconfirmed: int
    """Sent, and nobody knows whether they arrived."""
    held: int
    """Without a fate when the time was over, or when waiting on would have been in vain."""

    def __bool__(self) -> bool:
        return self.ok
