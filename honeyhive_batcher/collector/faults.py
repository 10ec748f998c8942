"""Misbehaving on demand: how often which fault befalls a request."""

import random
from typing import Any, Final

import msgspec
from msgspec import Struct, field, structs

from honeyhive_batcher.collector.answer import Answer
from honeyhive_batcher.errors import ConfigError

_PROBABILITIES: Final = ("partial", "drop_connection", "fail_after_store", "garbage", "hang")
_SECONDS: Final = ("latency", "latency_jitter")

# An hour is beyond every time-out there is; more, or infinity, is a slip.
_MAX_SECONDS: Final = 3600

# Statuses by which a real service asks to be left alone for a while; they come with Retry-After.
_OVERLOADED: Final = (429, 503)


class Faults(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Faults of the collector: probabilities from 0 to 1, durations in seconds.

    They befall only requests that the contract allows; a wrong request is refused as ever. Where
    several are drawn at once, the first in this order wins: hang, drop_connection, fail, garbage,
    fail_after_store, partial.

    Raises:
        ConfigError: a value is out of range; the message names the field.
    """

    fail: dict[int, float] = field(default_factory=dict[int, float])
    """Status (300 to 599) to probability: nothing is stored, the documented error body is answered."""
    partial: float = 0.0
    """Of the requests with two events or more: some are created, the others are reported as failed."""
    latency: float = 0.0
    """Seconds between storing and answering."""
    latency_jitter: float = 0.0
    """Up to so many seconds more, evenly spread."""
    drop_connection: float = 0.0
    """The connection is cut without an answer: one half before storing, the other half after."""
    fail_after_store: float = 0.0
    """Everything is stored, then the answer is a load balancer's 502 in HTML."""
    garbage: float = 0.0
    """A body that is not JSON: one half 200 after storing, the other half 500 without."""
    hang: float = 0.0
    """The request is read and never answered; nothing is stored."""
    retry_after: str | None = None
    """Retry-After of every `fail` answer; left out, 429 and 503 say "1" and the others nothing."""
    no_echo: bool = False
    """Answer with ids that the server made up instead of the events' own."""

    def __post_init__(self) -> None:
        for status, share in self.fail.items():
            if not 300 <= status <= 599:
                raise ConfigError(f"fail: {status!r} is not a status from 300 to 599")
            _check(f"fail[{status}]", share, most=1)
        # Each has its own stretch of one draw; beyond 1 the last ones would silently never happen.
        if sum(self.fail.values()) > 1 + 1e-9:
            raise ConfigError(f"fail: the probabilities add up to {sum(self.fail.values())}, more than 1")
        for name in _PROBABILITIES:
            _check(name, getattr(self, name), most=1)
        for name in _SECONDS:
            _check(name, getattr(self, name), most=_MAX_SECONDS)
        # It becomes a header: a line break in it would forge another one.
        if self.retry_after is not None and not self.retry_after.isprintable():
            raise ConfigError(f"retry_after: {self.retry_after!r} is not one line of text")

    @classmethod
    def from_json(cls, body: bytes) -> "Faults":
        """Read a JSON object with the fields of this class.

        Raises:
            ConfigError: it is no such object; the message names the field.
        """
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as wrong:
            raise ConfigError(f"faults: {wrong}") from None

    def replaced(self, **changes: Any) -> "Faults":
        """Return these faults with some fields changed.

        Raises:
            ConfigError: a value is out of range; the message names the field.
        """
        # Not `structs.replace`: older versions of msgspec do not have the result check itself.
        return Faults(**{**structs.asdict(self), **changes})


class Dice:
    """Draws the lot of each request.

    Invariant: every request takes the same number of draws whatever the faults are, so equal seeds give
    equal lots in equal order, and one fault more does not move where the others fall.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  repeatable is what it must be, not secret

    def roll(self, faults: Faults, events: int) -> Answer:
        """Return the lot of the next request, which holds so many events (0 for an update)."""
        hang, drop, fail, garbage, after_store, partial, side, subset, jitter = (
            self._random.random() for _ in range(9)
        )
        answer = Answer()
        if hang < faults.hang:
            answer = Answer.hung()
        elif drop < faults.drop_connection:
            answer = Answer.dropped(stored=side < 0.5)
        elif (status := _status(faults, fail)) is not None:
            answer = Answer.refused(status, retry_after=_retry_after(faults, status))
        elif garbage < faults.garbage:
            answer = Answer.garbage(200, stored=True) if side < 0.5 else Answer.garbage(500, stored=False)
        elif after_store < faults.fail_after_store:
            answer = Answer.bad_gateway()
        elif partial < faults.partial and events >= 2:
            answer = Answer.partly(*_proper_subset(subset, events))
        return structs.replace(
            answer, delay=faults.latency + jitter * faults.latency_jitter, echo=not faults.no_echo
        )


def _status(faults: Faults, draw: float) -> int | None:
    for status, share in faults.fail.items():
        draw -= share
        if draw < 0:
            return status
    return None


def _retry_after(faults: Faults, status: int) -> str | None:
    if faults.retry_after is not None:
        return faults.retry_after
    return "1" if status in _OVERLOADED else None


def _proper_subset(draw: float, events: int) -> tuple[int, ...]:
    # Its own generator: a subset of many events must not take more draws from the shared one.
    chooser = random.Random(draw)  # noqa: S311  as above
    return tuple(sorted(chooser.sample(range(events), chooser.randrange(1, events))))


def _check(name: str, value: object, *, most: float) -> None:
    # Written so that NaN fails as well; a boolean is a number to Python, never to a reader.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ConfigError(f"{name}: {value!r} is not a number from 0 to {most:g}")
