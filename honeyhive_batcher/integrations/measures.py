"""What there is to measure of a batcher, for every monitor that shows it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from msgspec import Struct

from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.core.model import Admission, DropReason, Endpoint, Trigger


class Counted(Protocol):
    """Something that counts: a `Batcher` or a `BlockingBatcher`."""

    def statistics(self) -> Statistics:
        """Return a snapshot in which the numbers add up."""
        ...


class Measure(Struct, frozen=True, kw_only=True):
    """One number of a snapshot, or one per value of a label."""

    name: str
    """With dots between the words' groups, without what a monitor adds for its kind or unit."""
    meaning: str
    is_counter: bool = True
    unit: str = ""
    label: str = ""
    """What tells several values apart; empty when there is one."""
    read: Callable[[Statistics], Mapping[str, float]]
    """The values by label; one under "" without a label, none when nothing is known yet."""


def _one(field: str) -> Callable[[Statistics], Mapping[str, float]]:
    return lambda now: {"": getattr(now, field)}


def _each(field: str, values: Iterable[str]) -> Callable[[Statistics], Mapping[str, float]]:
    # All from the beginning: a rate does not see the first of a series that was not there before.
    zeros = dict.fromkeys(values, 0.0)
    return lambda now: zeros | getattr(now, field)


_REFUSALS = [admission.value for admission in Admission if not admission]

MEASURES = (
    Measure(name="offered", meaning="Events given to push and put.", read=_one("offered")),
    Measure(name="accepted", meaning="Events taken into the queue.", read=_one("accepted")),
    Measure(name="refused", meaning="Events never taken.", label="reason", read=_each("refused", _REFUSALS)),
    Measure(name="delivered", meaning="Events that the server confirmed.", read=_one("delivered")),
    Measure(
        name="dropped",
        meaning="Accepted events that were surely not delivered.",
        label="reason",
        read=_each("dropped", [reason.value for reason in DropReason]),
    ),
    Measure(
        name="unconfirmed",
        meaning="Accepted events that were sent and of which nobody knows whether they arrived.",
        read=_one("unconfirmed"),
    ),
    Measure(
        name="held.events", meaning="Accepted events without a fate yet.", is_counter=False, read=_one("held")
    ),
    Measure(
        name="held.bytes", meaning="Bytes of the events held.", is_counter=False, read=_one("held_bytes")
    ),
    Measure(
        name="in_flight.requests",
        meaning="Requests on their way now.",
        is_counter=False,
        read=_one("in_flight"),
    ),
    Measure(name="requests", meaning="Requests sent.", read=_one("requests")),
    Measure(name="retries", meaning="Requests that sent a batch again.", read=_one("retries")),
    Measure(
        name="batches",
        meaning="Requests that sent a batch for the first time, by what made it be cut.",
        label="trigger",
        read=_each("batches", [trigger.value for trigger in Trigger]),
    ),
    Measure(
        name="repaired", meaning="Values replaced because JSON has no word for them.", read=_one("repaired")
    ),
    Measure(
        name="callback_errors",
        meaning="How often a callback raised or could not be called.",
        read=_one("callback_errors"),
    ),
    Measure(
        name="last_delivery.timestamp",
        meaning="When the server last confirmed an event, Unix time; absent before.",
        is_counter=False,
        unit="seconds",
        read=lambda now: {} if now.last_delivery_at is None else {"": now.last_delivery_at},
    ),
    Measure(
        name="endpoint",
        meaning="How the endpoint answered lately: 1 for the state it is in.",
        is_counter=False,
        label="state",
        read=lambda now: {state.value: float(state.value == now.endpoint) for state in Endpoint},
    ),
)
