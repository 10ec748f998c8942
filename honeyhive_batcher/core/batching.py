"""Which group is ripe, and how a batch is cut from it or split.

Groups keep their fragments first in, first out. The choice of the next group is O(log groups) per batch, not
per event: a heap orders the groups by their oldest fragment, and groups that are full wait in line beside it.
When both have a claim they take turns, so that neither many small sessions nor one busy group starves.
"""

import heapq
from collections import Counter, deque
from collections.abc import Set as AbstractSet
from typing import final

from honeyhive_batcher.config import BatchLimits
from honeyhive_batcher.core.body_limit import BodyLimit
from honeyhive_batcher.core.fragment import SESSIONLESS, Fragment, GroupKey
from honeyhive_batcher.core.group import Group
from honeyhive_batcher.core.model import Batch, Trigger

EVERYTHING = 1 << 62
"""A flush watermark beyond every sequence number: all that is queued is ripe."""
_MAX_STALE = 64  # entries in the heap, beyond two a group, that are worth clearing away


@final
class Groups:
    """The queue by groups. Not thread-safe: every call is made holding the intake's lock.

    A call of `add` may come in the midst of any other, from a push that interrupts its own thread.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._max_events = limits.max_batch_events
        self.body = BodyLimit(limits.max_batch_bytes)
        self.flush_through = 0
        """Fragments up to this sequence number are ripe whatever their age."""
        self._session_events = self._session_bytes = 0  # queued; without the closings
        self.usual = Group(SESSIONLESS)
        """The one group that never vanishes: that of the events without a session."""
        self._groups: dict[GroupKey, Group] = {SESSIONLESS: self.usual}
        self._oldest: list[tuple[int, Group]] = []
        # Invariant: every group that may be cut is in here. No two are compared: a number is of one group.
        self._full: deque[Group] = deque()  # groups that became full, in that order
        self._turn_of_full = True

    def knows(self, key: GroupKey) -> bool:
        """Return whether fragments of this key are queued, in flight or backing off."""
        return key in self._groups

    @property
    def queued_events(self) -> int:
        """Events that are queued; without the closings, which are never evicted."""
        return self._session_events + len(self.usual.fragments)

    @property
    def queued_bytes(self) -> int:
        """Their bytes, without the commas between them."""
        return self._session_bytes + self.usual.queued_bytes - len(self.usual.fragments)

    def add(self, fragment: Fragment, charged: int = 0) -> bool:
        """Queue a fragment; return whether that may be a reason to act earlier than planned.

        `charged` is what was charged for the properties of its group.
        """
        group = self._groups.get(fragment.key)
        if group is None:
            # Not a plain assignment: a push that interrupts this one may have made the group by then.
            group = self._groups.setdefault(fragment.key, Group(fragment.key))
        # No call of Python's own from here on: a push near the recursion limit fails before that, or not.
        group.charged += charged
        news = not self.usual.fragments and not self._session_events
        if not fragment.closing:
            size = len(fragment.data)  # no call in what follows: a push may interrupt this one
            group.queued_bytes += size + 1
            if group is not self.usual:
                self._session_events += 1
                self._session_bytes += size
        queue = group.fragments
        queue.append(fragment)
        if queue[0] is fragment:
            heapq.heappush(self._oldest, (fragment.seq, group))
        if not group.stands_in_line and (
            len(queue) >= self._max_events or group.overhead + group.queued_bytes >= self.body.max_bytes
        ):
            group.stands_in_line = True
            self._full.append(group)
            news = True
        return news

    def free_places(self) -> tuple[int, int, bool]:
        """Return how many more events without a session are no news, and how many bytes of them: behind
        others, until they fill a batch. And whether that has no end, because a full one is lined up.
        """
        group = self.usual
        if not group.fragments:
            return 0, 0, False
        if group.stands_in_line:
            return EVERYTHING, EVERYTHING, True
        events = self._max_events - len(group.fragments)
        return events, self.body.max_bytes - group.overhead - group.queued_bytes - events - 1, False

    def line_up_usual(self) -> None:
        """Let the group of the events without a session stand in line: they fill a batch."""
        if not self.usual.stands_in_line:
            self.usual.stands_in_line = True
            self._full.append(self.usual)

    def ripe_at(self) -> float | None:
        """Return the instant from which `cut` returns a batch, -inf for at once, None for never."""
        if self._first_full() is not None:
            return float("-inf")
        group = self._first_by_age()
        if group is None:
            return None
        head = group.fragments[0]
        if head.seq <= self.flush_through:
            return float("-inf")
        return head.accepted_at + self._limits.flush_interval

    def cut(self, now: float) -> Batch | None:
        """Cut the next ripe batch, or return None when nothing is ripe at `now`.

        The batch is of one group, first in first out, of 1 to `max_batch_events` events, and its body within
        `body.max_bytes` unless a single event makes it longer.
        """
        self.body.grow(now)
        full = self._first_full()
        aged = self._first_by_age()
        if aged is not None:
            head = aged.fragments[0]
            if head.seq > self.flush_through and head.accepted_at + self._limits.flush_interval > now:
                aged = None
        self._turn_of_full = not self._turn_of_full
        group = (full or aged) if self._turn_of_full else (aged or full)
        if group is None:
            return None
        if group is full:
            self._full.popleft()
            group.stands_in_line = False
            return self._cut_from(group, Trigger.FULL)
        is_flushed = group.fragments[0].seq <= self.flush_through
        return self._cut_from(group, Trigger.FLUSH if is_flushed else Trigger.INTERVAL)

    def evict(self) -> Fragment | None:
        """Take the oldest queued event out of the queue, or return None if there is none."""
        passed: list[tuple[int, Group]] = []
        evicted: Fragment | None = None
        while evicted is None and (entry := self._pop_oldest()) is not None:
            group = entry[1]
            if group.fragments[0].closing:  # it costs little and completes a session: not evicted
                passed.append(entry)
                continue
            evicted = group.fragments.popleft()
            self._count(group, evicted, -1)
            if group.fragments:
                heapq.heappush(self._oldest, (group.fragments[0].seq, group))
        for entry in passed:
            heapq.heappush(self._oldest, entry)
        return evicted

    def recover(self, known: AbstractSet[Fragment]) -> list[Fragment]:
        """Put in order what an interruption may have left half done; return all that is queued. `known` was
        cut and is not settled.
        """
        away = Counter(fragment.key for fragment in known)
        queued = [fragment for group in self._groups.values() for fragment in group.fragments]
        keys = {fragment.key for fragment in queued} | (away.keys() - {SESSIONLESS})
        self._groups = {key: self._groups.get(key) or Group(key) for key in keys}
        self._groups[SESSIONLESS] = self.usual
        self._oldest = sorted(
            (group.fragments[0].seq, group) for group in self._groups.values() if group.fragments
        )
        self._full.clear()
        self._session_events = self._session_bytes = 0
        for key, group in self._groups.items():
            group.away = 0 if key is SESSIONLESS else away[key]
            group.charged = len(key.properties)
            group.stands_in_line = False
            group.queued_bytes = 0
            for fragment in group.fragments:
                self._count(group, fragment, 1)
        for _seq, group in self._oldest:  # not in the order of the keys, which is another in every process
            if group.is_full(self._max_events, self.body.max_bytes):
                group.stands_in_line = True
                self._full.append(group)
        return queued

    @property
    def charged(self) -> int:
        """What the properties of all groups hold of the queue's bound."""
        return sum(group.charged for group in self._groups.values())

    def finish(self, fragment: Fragment) -> bool:
        """Finish an `add` that was interrupted; return whether it had queued this fragment. If not, it leaves
        nothing behind.
        """
        group = self._groups.get(fragment.key)
        if group is not None and not group.fragments and not group.away and group is not self.usual:
            del self._groups[fragment.key]  # what it was charged was charged for nothing
        if group is None or not any(each is fragment for each in reversed(group.fragments)):
            return False
        self._line_up(group)
        return True

    def put_back(self, closing: Fragment) -> None:
        """Queue a closing again that was to ride with a batch which is being split."""
        group = self._groups[closing.key]
        group.away -= 1
        group.fragments.appendleft(closing)  # lined up when the rest of that batch is settled

    def settled(self, key: GroupKey, fragments: int) -> int:
        """Note that cut fragments of a key are settled; return what its properties were charged if
        the group vanishes with them.
        """
        if key is SESSIONLESS:
            return 0
        group = self._groups[key]
        group.away -= fragments
        return self._vanish(group)

    def evicted(self, key: GroupKey) -> int:
        """Note that a fragment of a key was evicted; return the same as `settled`."""
        return 0 if key is SESSIONLESS else self._vanish(self._groups[key])

    def _vanish(self, group: Group) -> int:
        if group.fragments:
            if group.away == 0:
                self._line_up(group)  # its closing may have waited for this
            return 0
        if group.away:
            return 0
        del self._groups[group.key]  # no call since the look at what it has: a push may interrupt this
        return group.charged

    def _cut_from(self, group: Group, trigger: Trigger) -> Batch:
        queue = group.fragments
        taken, queued_bytes = group.take(self._max_events, self.body.max_bytes)
        events = len(taken)
        if queue and queue[0].closing:
            properties = len(queue[0].closing) - len(group.key.properties)
            if not taken or group.overhead + queued_bytes + events + properties <= self.body.max_bytes:
                taken.append(queue.popleft())
        group.queued_bytes -= queued_bytes + events  # no call in what follows
        if group is not self.usual:
            self._session_events -= events
            self._session_bytes -= queued_bytes
        if group.key is not SESSIONLESS:
            group.away += len(taken)
        if not group.stands_in_line and queue and group.is_full(self._max_events, self.body.max_bytes):
            group.stands_in_line = True
            self._full.append(group)
        self._line_up(group)
        return Batch(key=group.key, fragments=tuple(taken), trigger=trigger)

    def _count(self, group: Group, fragment: Fragment, sign: int) -> None:
        if not fragment.closing:
            size = len(fragment.data)  # no call in what follows: a push may interrupt this
            group.queued_bytes += sign * (size + 1)
            if group is not self.usual:
                self._session_events += sign
                self._session_bytes += sign * size

    def _line_up(self, group: Group) -> None:
        if group.fragments:
            heapq.heappush(self._oldest, (group.fragments[0].seq, group))
        if len(self._oldest) > 2 * len(self._groups) + _MAX_STALE:
            # A busy group leaves an entry behind with every cut, beneath a group that is not ripe for long.
            entries, self._oldest = self._oldest, []
            for entry in set(entries):
                if _is_current(*entry):
                    heapq.heappush(self._oldest, entry)

    def _first_full(self) -> Group | None:
        while self._full:
            group = self._full[0]
            is_full = group.is_full(self._max_events, self.body.max_bytes)
            if is_full and group.stands_in_line and group.fragments and not group.waits:
                return group
            group.stands_in_line = False  # it was cut or evicted from meanwhile
            self._full.popleft()
        return None

    def _first_by_age(self) -> Group | None:
        entry = self._pop_oldest()
        if entry is None:
            return None
        heapq.heappush(self._oldest, entry)
        return entry[1]

    def _pop_oldest(self) -> tuple[int, Group] | None:
        """Take out the entry of the group with the oldest fragment that may be cut."""
        while self._oldest:
            entry = heapq.heappop(self._oldest)  # before it is looked at: a push may change what is first
            if _is_current(*entry) and not entry[1].waits:
                return entry  # the others were cut or evicted from meanwhile, or wait to be lined up
        return None


def _is_current(seq: int, group: Group) -> bool:
    return bool(group.fragments) and group.fragments[0].seq == seq
