"""What every event passes before it is encoded: the sample, `before_send`, and the removal of content."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, final

from msgspec import UNSET

from honeyhive_batcher.config import Recording
from honeyhive_batcher.content import without_content
from honeyhive_batcher.core.encoding import Refusal
from honeyhive_batcher.core.model import Admission
from honeyhive_batcher.plain_json import TooLargeToLookAtError, may_be_an_event, plain_json
from honeyhive_batcher.sampling import Sample
from honeyhive_batcher.session import Session, Sessions, bound_session

_FILTERED = Refusal(admission=Admission.FILTERED, message="before_send kept the event")
_SAMPLED = Refusal(admission=Admission.SAMPLED, message="the event is not in the sample")
_TOO_LARGE = Refusal(admission=Admission.TOO_LARGE, message="the event is too large to be looked at")


@final
class Gate:
    """Lets events pass, changed or not, or refuses them. Never raises, and is safe in any thread."""

    def __init__(
        self,
        recording: Recording,
        before_send: Callable[[Any], Any] | None,
        sessions: Sessions,
        chance: Callable[[], float],
    ) -> None:
        self._sample = Sample(recording.sample_rate, chance) if recording.sample_rate < 1.0 else None
        self._before_send = before_send
        self._captures_content = recording.capture_content
        self._sessions = sessions

    @property
    def is_wide_open(self) -> bool:
        """Whether everything passes as it is, so that nobody has to ask."""
        return self._sample is None and self._before_send is None and self._captures_content

    def passed(self, event: object, session: Session | None) -> object:
        """Return what is to be sent in place of `event`, which is pushed with `session`; else a `Refusal`."""
        intake = self._sessions.intake
        if not intake.is_open:
            return event  # it will be refused as it is
        try:
            if self._sample is not None and not self._sample.keeps(self._name(event, session)):
                return _SAMPLED
            if self._before_send is not None:
                event = self._before_send(event)
                if event is None:
                    return _FILTERED
            if not self._captures_content and may_be_an_event(event):
                fields, repairs = plain_json(event)
                intake.ledger.repaired += repairs
                if isinstance(fields, dict):  # else the encoder says what it is
                    event = without_content(fields)
        except TooLargeToLookAtError:
            return _TOO_LARGE
        # What could not be looked at is not sent: it may hold what must not leave. A cancellation is the
        # callback's own, because nothing is awaited here.
        except (Exception, asyncio.CancelledError):
            intake.ledger.callback_errors += 1
            return _FILTERED
        return event

    def _name(self, event: object, session: Session | None) -> str | None:
        """Return what decides whether the event is in the sample: its session, or its own id."""
        session = session or bound_session(self._sessions, event)
        if session is not None:
            return session.session_id
        return _text(event, "session_id") or _text(event, "event_id") or None


def _text(event: object, field: str) -> str | None:
    try:
        value = event.get(field) if isinstance(event, Mapping) else getattr(event, field, UNSET)
        return None if value is None or value is UNSET else str(value)
    except (Exception, asyncio.CancelledError):  # a strange event's own doing: then by chance
        return None
