"""Thread-safe bounded admission; the only thing that producers' threads touch.

One lock guards the queue and the ledger. It is re-entrant, because a push may come from a `__del__`
or a signal handler that interrupts a push in the same thread. Such a push finds the numbers in order,
because the check of the bounds and the count of the event have no call between them.
"""

import threading
from collections.abc import Callable, Sequence
from typing import final

from honeyhive_batcher.config import BatchLimits, QueueLimits
from honeyhive_batcher.core import wire
from honeyhive_batcher.core.batching import EVERYTHING, Groups
from honeyhive_batcher.core.encoding import Encoded
from honeyhive_batcher.core.ledger import Barrier, Ledger, Statistics
from honeyhive_batcher.core.model import (
    SESSIONLESS,
    Admission,
    Batch,
    DropReason,
    Fate,
    Fragment,
    GroupKey,
    Settlement,
)


def _nobody() -> None:
    """Wake nobody: there is no worker yet."""


@final
class Intake:
    """The bounded queue. Every method may be called from any thread, and none waits for anything but
    the lock, which is never held longer than one batch takes to cut.
    """

    def __init__(self, queue: QueueLimits, batch: BatchLimits) -> None:
        self._lock = threading.RLock()
        self._evicts = queue.overflow == "drop_oldest"
        self._max_batch_bytes = batch.max_batch_bytes
        self._groups = Groups(batch)
        self.ledger = Ledger(max_events=queue.max_queue_events, max_bytes=queue.max_queue_bytes)
        """Numbers outside the equations may be set without the lock, by the one who knows them."""
        self.is_open = True
        self.wake: Callable[[], None] = _nobody
        """Called, without the lock, when an admission is a reason to act earlier than planned."""

    def admit(self, encoded: Encoded, key: GroupKey, now: float, *, wait: bool = False) -> Admission:
        """Take an encoded event into the queue, or say why not. Refusals are counted, except a full
        queue when the caller is going to wait for room.
        """
        return self._admit(encoded, key, now, b"", wait=wait)

    def admit_closing(self, update: Encoded, properties: bytes, key: GroupKey, now: float) -> Admission:
        """Take the end of a session into the queue: its final properties, and the update that carries
        them if the last of its events has left.
        """
        return self._admit(update, key, now, properties, wait=False)

    def _admit(self, encoded: Encoded, key: GroupKey, now: float, closing: bytes, *, wait: bool) -> Admission:
        size = len(encoded.data) + len(closing)
        fits = closing or len(encoded.data) + wire.overhead(key) <= self._max_batch_bytes
        with self._lock:
            if not self.is_open:
                return self._refused(Admission.CLOSED)
            charge = size if key is SESSIONLESS or self._groups.knows(key) else size + len(key.properties)
            if not fits or not self.ledger.could_hold(charge):
                return self._refused(Admission.TOO_LARGE)
            seq = self.ledger.accept(charge)
            if not seq and self._made_room(charge):
                seq = self.ledger.accept(charge)
            if not seq:
                return Admission.QUEUE_FULL if wait else self._refused(Admission.QUEUE_FULL)
            self.ledger.repaired += encoded.repairs
            news = self._groups.add(Fragment(encoded.data, encoded.event_id, key, seq, now, size, closing))
        if news:
            self.wake()
        return Admission.ACCEPTED

    def refuse(self, admission: Admission) -> Admission:
        """Count an event that was refused before it came to the queue."""
        with self._lock:
            return self._refused(admission)

    def ripe_at(self) -> float | None:
        """See `Groups.ripe_at`."""
        with self._lock:
            return self._groups.ripe_at()

    def cut(self, now: float) -> Batch | None:
        """See `Groups.cut`."""
        with self._lock:
            return self._groups.cut(now)

    def put_back(self, closing: Fragment) -> None:
        """See `Groups.put_back`."""
        with self._lock:
            self._groups.put_back(closing)

    def limit_body(self, max_bytes: int) -> None:
        """Cut no larger bodies from now on."""
        with self._lock:
            self._groups.max_body_bytes = min(self._groups.max_body_bytes, max_bytes)

    def settle(self, fragments: Sequence[Fragment], fate: Fate, reason: DropReason | None = None) -> None:
        """Give fragments of one group, cut before, their fate, and return their capacity."""
        if not fragments:
            return
        with self._lock:
            self.ledger.settle(fragments, fate, reason)
            self.ledger.held_bytes -= self._groups.settled(fragments[0].key, len(fragments))

    def raise_barrier(self) -> Barrier:
        """Make everything queued ripe, and return a barrier that counts what becomes of all held."""
        with self._lock:
            barrier = self.ledger.raise_barrier()
            self._groups.flush_through = max(self._groups.flush_through, barrier.watermark)
        self.wake()
        return barrier

    def lower_barrier(self, barrier: Barrier) -> None:
        """Stop counting for a barrier."""
        with self._lock:
            self.ledger.lower_barrier(barrier)

    @property
    def flush_through(self) -> int:
        """Everything up to this sequence number was asked to be flushed."""
        return self._groups.flush_through

    def close(self) -> None:
        """Refuse everything from now on, and make everything queued ripe."""
        with self._lock:
            self.is_open = False
            self._groups.flush_through = EVERYTHING

    def reopen(self) -> None:
        """Take events again, after everything of the run before is settled."""
        with self._lock:
            self._groups.flush_through = self.ledger.accepted
            self.is_open = True

    def take_settlements(self) -> list[Settlement]:
        """See `Ledger.take_settlements`."""
        with self._lock:
            return self.ledger.take_settlements()

    def statistics(self) -> Statistics:
        """Return a snapshot in which the equations hold."""
        with self._lock:
            return self.ledger.statistics()

    def _refused(self, admission: Admission) -> Admission:
        self.ledger.refuse(admission)
        return admission

    def _made_room(self, size: int) -> bool:
        """Evict as many of the oldest queued events as it takes; none if that would not be enough."""
        ledger, groups = self.ledger, self._groups
        if not self._evicts or not ledger.has_room(1 - groups.queued_events, size - groups.queued_bytes):
            return False
        while not ledger.has_room(1, size):
            evicted = groups.evict()
            if evicted is None:
                return False
            ledger.settle((evicted,), Fate.DROPPED, DropReason.EVICTED)
            ledger.held_bytes -= groups.evicted(evicted.key)
        return True
