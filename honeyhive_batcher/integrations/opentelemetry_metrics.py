"""The numbers of a batcher as OpenTelemetry's observable instruments: `observe(batcher)`, once."""

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.integrations.measures import MEASURES, Counted, Measure
from honeyhive_batcher.version import __version__

__all__ = ["observe"]

_UNITS = {"held.bytes": "By", "last_delivery.timestamp": "s"}


@final
class _Snapshots(threading.local):
    """Gives all instruments of one collection the same snapshot, or the numbers would not add up.

    The SDK does not say when a collection begins. But in one, which stays in its thread, each instrument
    asks once: whoever asks again has begun the next.
    """

    def __init__(self, batcher: weakref.ref[Counted]) -> None:
        # Instruments are never taken away: they must not keep it. Neither does `local`, which keeps this.
        self._batcher = batcher
        self._now: Statistics | None = None
        self._asked: set[str] = set()

    def of(self, name: str) -> Statistics | None:
        """Return the snapshot for this instrument, None when there is no batcher any more."""
        if self._now is None or name in self._asked:
            batcher = self._batcher()
            self._now = None if batcher is None else batcher.statistics()
            self._asked = set()
        self._asked.add(name)
        return self._now


def observe(batcher: Counted, *, meter_provider: MeterProvider | None = None) -> None:
    """Have the numbers of a `Batcher` or a `BlockingBatcher` read whenever metrics are collected.

    The instruments are `honeyhive_batcher.offered` and so on, of the global meter provider if none is given.
    They observe nothing any more when the batcher is gone. Call it once for a provider: a second batcher's
    numbers would be told under the same names.
    """
    meter = get_meter("honeyhive_batcher", __version__, meter_provider=meter_provider)
    snapshots = _Snapshots(weakref.ref(batcher))
    for measure in MEASURES:
        create = meter.create_observable_counter if measure.is_counter else meter.create_observable_gauge
        create(
            f"honeyhive_batcher.{measure.name}",
            callbacks=[_callback(measure, snapshots)],
            unit=_UNITS.get(measure.name, "1"),
            description=measure.meaning,
        )


def _callback(measure: Measure, snapshots: _Snapshots) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_options: CallbackOptions) -> list[Observation]:
        now = snapshots.of(measure.name)
        if now is None:
            return []
        return [
            Observation(number, {measure.label: value} if measure.label else {})
            for value, number in measure.read(now).items()
        ]

    return read
