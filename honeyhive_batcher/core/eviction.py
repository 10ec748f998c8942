"""Room for a new event at the cost of the oldest that wait (`overflow="drop_oldest"`)."""

from honeyhive_batcher.core.batching import Groups
from honeyhive_batcher.core.fragment import GroupKey
from honeyhive_batcher.core.ledger import Ledger
from honeyhive_batcher.core.model import DropReason, Fate


def charged(groups: Groups, key: GroupKey, size: int) -> int:
    """Return what an event takes of the bound: its size, and for the first of a group its properties."""
    return size if groups.knows(key) else size + len(key.properties)


def made_room(ledger: Ledger, groups: Groups, key: GroupKey, size: int) -> bool:
    """Evict as many of the oldest queued events as it takes; none if that would not be enough."""
    most = charged(groups, key, size) - groups.queued_bytes
    if not ledger.has_room(1 - groups.queued_events, most):
        return False
    while not ledger.has_room(1, charged(groups, key, size)):
        evicted = groups.evict()
        if evicted is None:
            return False
        ledger.settle((evicted,), Fate.DROPPED, DropReason.EVICTED)
        returned = groups.evicted(evicted.key)
        ledger.held_bytes -= returned
    return True
