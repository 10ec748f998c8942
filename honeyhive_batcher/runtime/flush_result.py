"""The answer of `flush`."""

from typing import Self

from msgspec import Struct

from honeyhive_batcher.core.ledger import Barrier


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

    @classmethod
    def of(cls, barrier: Barrier) -> Self:
        """Return what a barrier has counted."""
        return cls(
            ok=not (barrier.held or barrier.dropped or barrier.unconfirmed),
            delivered=barrier.delivered,
            dropped=barrier.dropped,
            unconfirmed=barrier.unconfirmed,
            held=barrier.held,
        )

    def __bool__(self) -> bool:
        return self.ok
