"""Captures what is pushed, at the seam between the batchers and their queues, for `testing.capture`.

A push asks nobody whether it is captured: the queue's `admit` is another one as long as somebody captures.
"""

import contextlib
import threading
from collections.abc import Generator
from typing import Any

import msgspec

from honeyhive_batcher.core.fragment import Fragment, GroupKey
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.model import Admission

_admit = Intake.admit
_lock = threading.Lock()
_captures: list[list["CapturedEvent"]] = []


class CapturedEvent(dict[str, Any]):
    """An event as it would have been sent, with its fields as attributes as well as items.

    A field that is named like a method of `dict` is an item only.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the event has no {name!r}, only {', '.join(self)}") from None


def _captured(
    intake: Intake, fragment: Fragment, key: GroupKey, now: float, *, wait: bool = False
) -> Admission:
    """Do what `Intake.admit` does, but for the queue."""
    with _lock:
        events = _captures[-1] if _captures else None
    if events is None or not intake.is_open:
        return _admit(intake, fragment, key, now, wait=wait)
    if not fragment.closing:  # the end of a session is no event
        event = CapturedEvent(msgspec.json.decode(fragment.data))
        if key.session_id:
            event.setdefault("session_id", key.session_id)
        events.append(event)
    return Admission.ACCEPTED


@contextlib.contextmanager
def capture() -> Generator[list[CapturedEvent], None, None]:
    """Capture what is pushed or put to any batcher while this lasts, from any thread; nothing is sent.

    Yields the list of events, as they would have been sent: defaults, ids and `session_id` filled in, and
    what `before_send` made of them. It works for batchers made before, and for those that never start. What
    would have been refused is refused, but for the bounds of the queue and of a request. What
    is captured is not counted in `statistics()`. Of captures within captures the innermost has the event.
    """
    events: list[CapturedEvent] = []
    with _lock:
        _captures.append(events)
        Intake.admit = _captured  # type: ignore[method-assign,assignment]  # that is the seam
    try:
        yield events
    finally:
        with _lock:
            # By identity: two lists with equal events are two captures.
            _captures[:] = [each for each in _captures if each is not events]
            if not _captures:
                Intake.admit = _admit  # type: ignore[method-assign]  # put back
