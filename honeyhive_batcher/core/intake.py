"""Thread-safe bounded admission; the only thing that producers' threads touch.

One lock guards the queue and the ledger. It is re-entrant, because a push may come from a `__del__`
or a signal handler that interrupts a push in the same thread. Such a push finds the numbers in order,
because the check of the bounds and the count of the event have no call between them; it evicts nothing,
because what it would evict may be in the hands of what it interrupts.

Most events come without a session, while others wait before them and there is room: all that such a one
changes is the end of its queue. How far that holds is worked out once, whenever anything else has changed,
and until then `take` does no more than it must.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import final

import msgspec

from honeyhive_batcher.config import BatchLimits, QueueLimits
from honeyhive_batcher.core import wire
from honeyhive_batcher.core.batching import EVERYTHING, Groups
from honeyhive_batcher.core.change import Change
from honeyhive_batcher.core.eviction import charged, made_room
from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment, GroupKey
from honeyhive_batcher.core.ledger import Barrier, Ledger, Statistics
from honeyhive_batcher.core.model import Admission, Batch, DropReason, Fate, Settlement

_ACCEPTED = Admission.ACCEPTED  # looked up here: in CPython 3.11 that is a call
_SAMPLED = Admission.SAMPLED
_SAME_INSTANT = 0.001
"""Seconds in which all that is accepted counts as accepted at once: a number for each would cost 32 bytes."""


def _nobody() -> None:
    """Wake nobody: there is no worker yet."""


@final
class Intake:
    """The bounded queue. Every method may be called from any thread, and none waits for anything but
    the lock, which is never held longer than one batch takes to cut.
    """

    def __init__(self, queue: QueueLimits, batch: BatchLimits) -> None:
        self._lock = threading.RLock()
        self._is_busy = False  # whether the thread that has the lock is in the midst of something
        self._evicts = queue.overflow == "drop_oldest"
        self._max_batch_bytes = batch.max_batch_bytes
        self._max_sessionless = min(batch.max_batch_bytes - wire.overhead(SESSIONLESS), queue.max_queue_bytes)
        if queue.max_queue_events < batch.max_batch_events:  # then a full queue is a full batch
            batch = msgspec.structs.replace(batch, max_batch_events=queue.max_queue_events)
        self._groups = Groups(batch)
        self.ledger = Ledger(max_events=queue.max_queue_events, max_bytes=queue.max_queue_bytes)
        """Numbers outside the equations may be set without the lock, by the one who knows them."""
        self.flushes = 0
        """How many times somebody asked to have everything sent without delay."""
        self.is_open = True
        self.is_told = False
        """Whether the log has told all that was lost so far: then the next loss wakes the worker."""
        self.wake: Callable[[], None] = _nobody
        """Called when an admission, or a loss, is a reason to act earlier than planned."""
        self.is_unattended = False
        """Whether there is no worker, so that every admission calls `wake`."""
        self._owes_a_wake = False  # whether the last such call failed
        self._instant = float("-inf")  # of the last admission or cut: one object for all that share it
        # Up to this place in the order, and to so many bytes held, `take` needs no look at anything else; and
        # the event of this place fills a batch.
        self._free_through = self._free_bytes = self._fills_at = 0
        self._usual = self._groups.usual
        self._change = Change(self._begin_change, self._end_change)

    def take(self, fragment: Fragment) -> bool:
        """Take an event without a session, if that changes nothing but the end of its queue, or fills a batch
        of it; else do nothing, and leave it to `admit`.

        No clock is read for it. All that is known of its age is that it is no older than `accepted_at` says,
        so that it may be sent too early, by less than a cut is old, and never too late.
        """
        size = len(fragment.data)
        with self._lock:
            ledger, group = self.ledger, self._usual
            seq, held_bytes = ledger.seq + 1, ledger.held_bytes + size
            if seq > self._free_through or held_bytes > self._free_bytes:
                return False
            # No call from here on before it is queued: a push, or a Ctrl-C, may come with any.
            ledger.seq = fragment.seq = seq
            ledger.held_bytes = held_bytes
            group.queued_bytes += size + 1
            fragment.accepted_at = self._instant
            try:
                group.fragments.append(fragment)
            except MemoryError:
                ledger.take_back(size)
                group.queued_bytes -= size + 1
                raise
            if seq != self._fills_at:
                return True
            try:
                with self._change:
                    self._groups.line_up_usual()
            except RecursionError:  # it is in the queue all the same: the next one has a look
                self._is_busy, self._free_through = False, 0
        try:
            self.wake()
        except RecursionError:
            self._owes_a_wake, self._free_through = True, 0
        return True

    def _begin_change(self) -> None:
        """See to it that a push which interrupts this one's thread evicts nothing, and has a look."""
        self._is_busy = True
        self._free_through = 0

    def _end_change(self) -> None:
        self._is_busy = False
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Work out how far `take` may go. A push that comes meanwhile makes it go less far, and never too
        far: what was taken before is read first.
        """
        ledger = self.ledger
        seq, held_bytes = ledger.seq, ledger.held_bytes
        events, size, is_lined_up = self._groups.free_places()
        most_events, most_bytes = ledger.room
        if not self.is_open or self.is_unattended or self._owes_a_wake:
            return
        self._free_bytes = held_bytes + min(size, most_bytes, self._max_sessionless)
        self._fills_at = 0 if is_lined_up else seq + events
        self._free_through = seq + min(events, most_events)

    def admit(self, fragment: Fragment, key: GroupKey, now: float, *, wait: bool = False) -> Admission:
        """Take an encoded event into the queue, among those of `key`, or say why not.

        Refusals are counted, except a full queue when the caller is going to `wait` for room.
        """
        with self._lock:
            interrupts, self._is_busy = self._is_busy, True
            free_through, self._free_through = self._free_through, 0
            has_changed = True  # what `take` goes by
            try:
                admission, news = self._admit(fragment, key, now, interrupts=interrupts)
                has_changed = self._evicts or (key is SESSIONLESS and admission is _ACCEPTED)
                if admission is not _ACCEPTED and not (wait and admission is Admission.QUEUE_FULL):
                    return self._refused(admission)
            finally:
                self._is_busy = interrupts
                if not has_changed and not self._owes_a_wake:
                    self._free_through = free_through
                elif not interrupts:
                    try:
                        self._look_ahead()
                    except RecursionError:  # what is done is done: the next one has a look, too
                        self._free_through = 0
        if news:
            try:
                self.wake()
                self._owes_a_wake = self.is_unattended
            except RecursionError:  # the event is in the queue all the same: let the next one do it
                self._owes_a_wake, self._free_through = True, 0
        return admission

    def _admit(
        self, fragment: Fragment, key: GroupKey, now: float, *, interrupts: bool
    ) -> tuple[Admission, bool]:
        """Return what `admit` has to say, and whether it has to wake the worker."""
        if not self.is_open:
            return Admission.CLOSED, False
        size = len(fragment.data) + len(fragment.closing)
        fits = fragment.closing or size + wire.overhead(key) <= self._max_batch_bytes
        # It needs more of the stack than what follows: that is done whole, or not at all.
        charge = charged(self._groups, key, size)
        if not fits or not self.ledger.could_hold(charge):
            return Admission.TOO_LARGE, False
        news = self._owes_a_wake
        seq = self.ledger.accept(charge)
        if not seq and self._evicts and not interrupts and made_room(self.ledger, self._groups, key, size):
            news |= self.is_told or len(self.ledger.settlements) == 1  # somebody is to be told
            self.is_told = False
            charge = charged(self._groups, key, size)  # its group may have vanished with what was evicted
            seq = self.ledger.accept(charge)
        if not seq:
            return Admission.QUEUE_FULL, False
        if not 0.0 <= now - self._instant < _SAME_INSTANT:
            self._instant = now
        if key is not SESSIONLESS:
            self._fills_at += 1  # one place in the order less for those that fill a batch without a session
        fragment.key = key
        fragment.seq = seq
        fragment.accepted_at = self._instant
        try:  # no call before this line: a Ctrl-C may come with any
            news |= self._groups.add(fragment, charge - size)
        except BaseException:  # no memory, a Ctrl-C
            if self._groups.finish(fragment):
                self._owes_a_wake = True
            else:
                self.ledger.take_back(charge)
            raise
        if fragment.repairs:
            self.ledger.repaired += fragment.repairs
        return _ACCEPTED, news

    def refuse(self, admission: Admission) -> Admission:
        """Count an event that was refused before it came to the queue."""
        with self._lock:
            return self._refused(admission)

    def ripe_at(self) -> float | None:
        """See `Groups.ripe_at`."""
        with self._lock, self._change:
            return self._groups.ripe_at()

    def cut(self, now: float) -> Batch | None:
        """See `Groups.cut`."""
        with self._lock, self._change:
            self._instant = now  # what `take` takes from here on is no older
            return self._groups.cut(now)

    def put_back(self, closing: Fragment) -> None:
        """See `Groups.put_back`."""
        with self._lock, self._change:
            self._groups.put_back(closing)

    def limit_body(self, max_bytes: int, now: float) -> None:
        """See `BodyLimit.lower`."""
        with self._lock, self._change:
            self._groups.body.lower(max_bytes, now)

    def settle(self, fragments: Sequence[Fragment], fate: Fate, reason: DropReason | None = None) -> None:
        """Give fragments of one group, cut before, their fate, and return their capacity."""
        if not fragments:
            return
        with self._lock, self._change:
            self.ledger.settle(fragments, fate, reason)
            returned = self._groups.settled(fragments[0].key, len(fragments))
            self.ledger.held_bytes -= returned  # a line of its own: a push may come during the call

    def raise_barrier(self) -> Barrier:
        """Make everything queued ripe, and return a barrier that counts what becomes of all held."""
        with self._lock:
            barrier = self.ledger.raise_barrier()
            self._groups.flush_through = max(self._groups.flush_through, barrier.watermark)
            self.flushes += 1
        self.wake()
        return barrier

    def lower_barrier(self, barrier: Barrier) -> None:
        """Stop counting for a barrier."""
        with self._lock:
            self.ledger.lower_barrier(barrier)

    def close(self) -> None:
        """Refuse everything from now on, and make everything queued ripe."""
        with self._lock, self._change:
            self.is_open = False
            self._groups.flush_through = EVERYTHING
            self.flushes += 1

    def reconcile(self, known: AbstractSet[Fragment], in_doubt: Iterable[Fragment]) -> None:
        """Put queue and ledger in order after an interruption. `known` was cut and is in the engine's hands.
        What is `in_doubt`, without a fate, and neither known nor queued, is unconfirmed; so is what is
        nowhere at all, see `Ledger.reconcile`.
        """
        with self._lock, self._change:
            queued = self._groups.recover(known)
            held = {*known, *queued}
            self.ledger.reconcile(held, self._groups.charged, [each for each in in_doubt if each not in held])

    def reopen(self) -> None:
        """Take events again. What the run before was told to send without delay is still sent so."""
        with self._lock, self._change:
            self._groups.flush_through = min(self._groups.flush_through, self.ledger.seq)
            self.is_open = True

    def take_settlements(self) -> list[Settlement]:
        """See `Ledger.take_settlements`."""
        if not self.ledger.settlements:  # without the lock: the next look finds what comes now
            return []
        with self._lock:
            return self.ledger.take_settlements()

    def statistics(self) -> Statistics:
        """Return a snapshot in which the equations hold."""
        with self._lock:
            return self.ledger.statistics()

    def _refused(self, admission: Admission) -> Admission:
        self.ledger.refuse(admission)
        # The only call with the lock: it comes once for every line in the log, and never for what is no loss.
        if self.is_told and admission is not _SAMPLED:
            self.is_told = False
            try:
                self.wake()
            except RecursionError:
                self._owes_a_wake, self._free_through = True, 0
        return admission
