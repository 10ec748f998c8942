"""Counts every event exactly once, and gives the snapshot whose numbers always add up.

offered  = accepted + refused
accepted = delivered + dropped + unconfirmed + held
"""

from collections import Counter, deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import assert_never, final

from msgspec import Struct

from honeyhive_batcher.core.fragment import Fragment, ids_of, size_of
from honeyhive_batcher.core.model import Admission, Attempt, DropReason, Endpoint, Fate, Settlement, Trigger
from honeyhive_batcher.errors import InternalError

_SAMPLED = Admission.SAMPLED  # looked up here: in CPython 3.11 that is a call


class Statistics(Struct, frozen=True, kw_only=True):
    """What became of everything offered so far; over all runs of a batcher.

    In every snapshot `offered == accepted + sum(refused.values())` and
    `accepted == delivered + sum(dropped.values()) + unconfirmed + held`. A session's closing update
    is counted as one event.
    """

    offered: int
    """Events given to `push` and `put`."""
    accepted: int
    """Events taken into the queue."""
    refused: dict[str, int]
    """Events never taken, by reason: the values of `Admission`."""
    delivered: int
    """Events that the server confirmed."""
    dropped: dict[str, int]
    """Accepted events that were surely not delivered, by reason: the values of `DropReason`."""
    unconfirmed: int
    """Accepted events that were sent and of which nobody knows whether they arrived."""
    held: int
    """Accepted events without a fate yet: queued, in flight or backing off."""
    held_bytes: int
    """Bytes of the events held, encoded, and of the properties of their sessions."""
    in_flight: int
    """Requests on their way now."""
    requests: int
    """Requests sent."""
    retries: int
    """Requests that sent a batch again."""
    batches: dict[str, int]
    """Requests that sent a batch for the first time, by what made it be cut: the values of `Trigger`.
    The other requests are retries, and parts of batches that were split."""
    repaired: int
    """Values replaced in events because JSON has no word for them."""
    callback_errors: int
    """How often `before_send` or a callback raised, or could not be called: nothing ran for too long."""
    endpoint: str
    """How the endpoint answered lately: a value of `Endpoint`."""
    last_error: str | None
    """What went wrong last on the way to the server, also if all is well since: see `endpoint`. No payload,
    header or key is in it.
    """
    last_delivery_at: float | None
    """When the server last confirmed an event, Unix seconds."""


@final
class Barrier:
    """What became of the events that were held when a flush was called.

    Invariant: `held` falls to 0 and every event is counted in one of the other three meanwhile.
    """

    __slots__ = ("delivered", "dropped", "held", "unconfirmed", "watermark")

    def __init__(self, watermark: int, held: int) -> None:
        self.watermark = watermark
        self.held = held
        self.delivered = 0
        self.dropped = 0
        self.unconfirmed = 0

    def count(self, fate: Fate, events: int) -> None:
        """Note that so many of the events before the barrier met their fate."""
        self.held -= events
        match fate:
            case Fate.DELIVERED:
                self.delivered += events
            case Fate.DROPPED:
                self.dropped += events
            case Fate.UNCONFIRMED:
                self.unconfirmed += events
            case _:
                assert_never(fate)


@final
class Ledger:
    """The place where events are counted and capacity is taken and returned. Only `Intake.take` does by hand
    what `accept` does, because it has to do it without a call.

    Not thread-safe: every call is made holding the intake's lock. The plain attributes at the end are
    no part of the equations; whoever knows them sets them.
    """

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self.seq = 0
        """Place of the event accepted last in the order of admission, from 1."""
        self.held_bytes = 0
        self._left = 0  # events that were accepted and are held no more: counted apart from their fates
        # All from the beginning, so that counting needs no call: see `refuse`.
        self.refused: dict[Admission, int] = dict.fromkeys(Admission, 0)
        self.dropped: Counter[DropReason] = Counter()
        self.delivered = 0
        self.unconfirmed = 0
        self.losses = 0
        """Events refused, but for those left out on purpose, dropped and unconfirmed: their sum, kept because
        the log looks at it with every batch.
        """
        self._taken_back = 0
        self._barriers: list[Barrier] = []
        self.keep_settlements = False
        self.settlements: deque[Settlement] = deque()  # what callbacks have not been told yet

        self.in_flight = 0
        self.requests = 0
        self.retries = 0
        self.batches: Counter[Trigger] = Counter()
        self.repaired = 0
        self.callback_errors = 0
        self.endpoint = Endpoint.UNKNOWN
        self.is_plain = False
        """Whether the server would not have a body compressed that it took in plain."""
        self.last_error: str | None = None
        self.last_delivery_at: float | None = None

    @property
    def held_events(self) -> int:
        """Events without a fate yet."""
        return self.seq - self._left

    def has_room(self, events: int, size: int) -> bool:
        """Return whether so much more can be held."""
        return self.held_events + events <= self._max_events and self.held_bytes + size <= self._max_bytes

    @property
    def room(self) -> tuple[int, int]:
        """How many more events, and how many more bytes, can be held."""
        return self._max_events - self.held_events, self._max_bytes - self.held_bytes

    def could_hold(self, size: int) -> bool:
        """Return whether an event of this size fits at all."""
        return size <= self._max_bytes

    def accept(self, size: int) -> int:
        """Count an accepted event and take its capacity; return its place in the order of admission,
        from 1, or 0 if there is no room.
        """
        # No call in here: nothing may come between the check and the count, see `intake`.
        if self.seq - self._left >= self._max_events or self.held_bytes + size > self._max_bytes:
            return 0
        self.held_bytes += size
        self.seq += 1
        return self.seq

    def take_back(self, size: int) -> None:
        """Undo `accept`, but for the place in the order."""
        self._left += 1
        self.held_bytes -= size
        self._taken_back += 1

    def refuse(self, admission: Admission) -> None:
        """Count an event that was not taken."""
        self.refused[admission] += 1  # no call in here either
        self.losses += admission is not _SAMPLED

    def settle(self, fragments: Sequence[Fragment], fate: Fate, reason: DropReason | None) -> None:
        """Give fragments their fate and return their capacity.

        Raises:
            InternalError: One of them has a fate already; then nothing is changed.
        """
        twice = [fragment for fragment in fragments if fragment.settled]
        if twice:
            raise InternalError(f"event {twice[0].event_id} was settled twice")
        if reason is not None and reason not in self.dropped:
            self.dropped[reason] = 0
        size = size_of(fragments)
        for fragment in fragments:
            fragment.settled = True
        events = len(fragments)
        self._left += events
        self.held_bytes -= size
        match fate:
            case Fate.DELIVERED:
                self.delivered += events
            case Fate.UNCONFIRMED:
                self.unconfirmed += events
                self.losses += events
            case Fate.DROPPED:
                assert reason is not None
                self.dropped[reason] += events
                self.losses += events
            case _:
                assert_never(fate)
        for barrier in self._barriers:
            barrier.count(fate, sum(fragment.seq <= barrier.watermark for fragment in fragments))
        if self.keep_settlements and fragments:
            self.settlements.append(Settlement(fate=fate, reason=reason, event_ids=ids_of(fragments)))
            # Nobody calls back: there is no worker, or it sleeps.
            if len(self.settlements) > self._max_events:
                self.settlements.popleft()
                self.callback_errors += 1

    def begun(self, attempt: Attempt) -> None:
        """Count a request that goes now."""
        self.requests += 1
        self.retries += attempt.number > 1
        trigger = attempt.batch.trigger
        if attempt.first_at is None and trigger is not None:  # else it is a part of a batch that was counted
            self.batches[trigger] += 1

    def reconcile(self, held: AbstractSet[Fragment], charged: int, in_doubt: Sequence[Fragment]) -> None:
        """Hold what is `held` and nothing else, with so many bytes `charged` beside it. The rest, first
        of all what is `in_doubt` and has no fate, is unconfirmed.

        There is no other rest but after a bug, or a Ctrl-C that struck while an event changed hands. Nobody
        knows its id, so that callbacks are not told of it.
        """
        self.settle([each for each in in_doubt if not each.settled], Fate.UNCONFIRMED, None)
        settled = self.delivered + self.dropped.total() + self.unconfirmed
        strays = self.seq - self._taken_back - settled - len(held)
        self.unconfirmed += strays
        self.losses += strays
        self.callback_errors += self.keep_settlements and strays > 0
        self._left = self.seq - len(held)
        self.held_bytes = charged + size_of(held)
        for barrier in self._barriers:
            before = sum(fragment.seq <= barrier.watermark for fragment in held)
            barrier.count(Fate.UNCONFIRMED, barrier.held - before)

    def raise_barrier(self) -> Barrier:
        """Return a barrier behind everything held now; it counts until `lower_barrier`."""
        barrier = Barrier(0, 0)
        self._barriers.append(barrier)
        # Only now, and without a call: what a push evicts meanwhile must not be waited for.
        barrier.watermark, barrier.held = self.seq, self.seq - self._left
        return barrier

    @property
    def is_flushing(self) -> bool:
        """Whether somebody waits for events to be settled."""
        return any(barrier.held for barrier in self._barriers)

    def lower_barrier(self, barrier: Barrier) -> None:
        """Stop counting for a barrier."""
        self._barriers.remove(barrier)

    def take_settlements(self) -> list[Settlement]:
        """Return what callbacks have not been told yet, once."""
        taken, self.settlements = self.settlements, deque()
        return list(taken)

    def statistics(self) -> Statistics:
        """Return a snapshot."""
        while True:
            seq, accepted = self.seq, self.seq - self._taken_back
            refused = {admission: events for admission, events in self.refused.items() if events}
            dropped = dict(self.dropped)
            delivered, unconfirmed = self.delivered, self.unconfirmed
            held, held_bytes = self.held_events, self.held_bytes
            if seq == self.seq:  # else a push came in between
                break
        return Statistics(
            offered=accepted + sum(refused.values()),
            accepted=accepted,
            refused={admission.value: events for admission, events in refused.items()},
            delivered=delivered,
            dropped={reason.value: events for reason, events in dropped.items()},
            unconfirmed=unconfirmed,
            held=held,
            held_bytes=held_bytes,
            in_flight=self.in_flight,
            requests=self.requests,
            retries=self.retries,
            batches={trigger.value: batches for trigger, batches in dict(self.batches).items()},
            repaired=self.repaired,
            callback_errors=self.callback_errors,
            endpoint=self.endpoint.value,
            last_error=self.last_error,
            last_delivery_at=self.last_delivery_at,
        )
