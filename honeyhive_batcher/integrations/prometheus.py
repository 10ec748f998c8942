"""The numbers of a batcher for Prometheus, read when it asks: `REGISTRY.register(collector(batcher))`."""

from collections.abc import Iterator
from typing import final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from honeyhive_batcher.integrations.measures import MEASURES, Counted

__all__ = ["StatisticsCollector", "collector"]


@final
class StatisticsCollector:
    """What a registry of prometheus_client asks at every scrape. Costs a push nothing."""

    def __init__(self, batcher: Counted) -> None:
        self._batcher = batcher

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield all metrics of one snapshot, so that the numbers add up in every scrape."""
        now = self._batcher.statistics()
        for measure in MEASURES:
            name = "_".join(filter(None, ("honeyhive_batcher", measure.name.replace(".", "_"), measure.unit)))
            family = CounterMetricFamily if measure.is_counter else GaugeMetricFamily
            labels = [measure.label] if measure.label else []
            metric = family(name, measure.meaning, labels=labels)
            for value, number in measure.read(now).items():
                metric.add_metric([value] if labels else [], number)
            yield metric


def collector(batcher: Counted) -> StatisticsCollector:
    """Return a collector of the numbers of a `Batcher` or a `BlockingBatcher`.

    A registry takes one batcher: for several, give each a `CollectorRegistry` of its own. In
    prometheus_client's multiprocess mode, custom collectors are not asked: have each worker scraped.
    """
    return StatisticsCollector(batcher)
