"""What became of every line read: each is counted once."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import final

from honeyhive_batcher.cli.send.rejects import Rejects
from honeyhive_batcher.core.model import DropReason

_REASONS = {
    DropReason.REJECTED: "rejected by the server",
    DropReason.TOO_LARGE: "too large for the server",
    DropReason.RETRIES_EXHAUSTED: "given up: the server did not take it",
}


@final
class Fates:
    """Keeps the lines without a fate yet; the batcher's bounded queue bounds them.

    Invariant: `read = blank + skipped + delivered + rejected + unconfirmed + not_sent + pending`.
    """

    def __init__(
        self, rejects: Rejects, report: Callable[[int, str], None], cause: Callable[[], str | None]
    ) -> None:
        """Report `(line number, reason)`; `cause` says what the server answered last."""
        self._rejects = rejects
        self._report = report
        self._cause = cause
        # By event id, oldest first: lines may share an id, and then the fates of one go to the first.
        self._pending: dict[str, deque[tuple[int, bytes]]] = {}
        self.pending = 0
        self.read = 0
        self.blank = 0
        self.skipped = 0
        self.delivered = 0
        self.rejected = 0
        self.unconfirmed: list[int] = []
        self.not_sent = 0
        self._first_not_sent: int | None = None

    def put(self, event_id: str, number: int, data: bytes) -> None:
        """Note that a line is about to be offered to the batcher. If it is not, it stays pending."""
        self._pending.setdefault(event_id, deque()).append((number, data))
        self.pending += 1

    def reject(self, number: int, data: bytes, reason: str) -> None:
        """Note that a whole line is not delivered, for a reason that is told."""
        self.rejected += 1
        self._report(number, reason)
        self._rejects.write(data, b"\n")

    def reject_put(self, event_id: str, reason: str) -> None:
        """Note that the batcher would not have the line last put under this id."""
        number, data = self._take(event_id, last=True)
        self.reject(number, data, reason)

    def on_delivered(self, event_ids: Iterable[str]) -> None:
        """See `Batcher`."""
        for event_id in event_ids:
            self._take(event_id)
            self.delivered += 1

    def on_unconfirmed(self, event_ids: Iterable[str]) -> None:
        """See `Batcher`."""
        self.unconfirmed += [self._take(event_id)[0] for event_id in event_ids]

    def on_dropped(self, event_ids: Iterable[str], reason: str) -> None:
        """See `Batcher`."""
        words = _REASONS.get(DropReason(reason))
        for event_id in event_ids:
            number, data = self._take(event_id)
            if words is None:
                self._count_not_sent(number)
            else:
                cause = self._cause()
                self.reject(number, data, f"{words} (last error: {cause})" if cause else words)

    def settled_through(self) -> int:
        """Return how many of the first lines are done: delivered, rejected, blank or skipped, all of them."""
        open_lines = [number for lines in self._pending.values() for number, _ in lines]
        if self._first_not_sent is not None:
            open_lines.append(self._first_not_sent)
        return min([*open_lines, *self.unconfirmed], default=self.read + 1) - 1

    def _count_not_sent(self, number: int) -> None:
        self.not_sent += 1
        self._first_not_sent = min(number, self._first_not_sent or number)

    def _take(self, event_id: str, *, last: bool = False) -> tuple[int, bytes]:
        lines = self._pending[event_id]
        line = lines.pop() if last else lines.popleft()
        if not lines:
            del self._pending[event_id]
        self.pending -= 1
        return line


def ranges(numbers: Iterable[int]) -> str:
    """Return line numbers in few words: "3, 7-9"."""
    parts: list[str] = []
    first = last = -1
    for number in [*sorted(numbers), -1]:
        if number == last + 1 and first > 0:
            last = number
            continue
        if first > 0:
            parts.append(str(first) if first == last else f"{first}-{last}")
        first = last = number
    return ", ".join(parts)
