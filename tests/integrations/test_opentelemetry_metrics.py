"""The real OpenTelemetry SDK, collecting from a batcher at work."""

import gc
import threading

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from honeyhive_batcher import Batcher
from honeyhive_batcher.integrations.opentelemetry_metrics import observe
from honeyhive_batcher.testing import Faults, collector
from tests.integrations.test_prometheus import EVENT

pytestmark = pytest.mark.anyio

Collected = dict[str, dict[str, float]]


def collect(reader: InMemoryMetricReader) -> Collected:
    data = reader.get_metrics_data()
    if data is None:
        return {}
    found: Collected = {}
    for metric in (
        each for one in data.resource_metrics for scope in one.scope_metrics for each in scope.metrics
    ):
        name = metric.name.removeprefix("honeyhive_batcher.")
        is_gauge = name.startswith(("held", "in_flight", "last_delivery", "endpoint"))
        assert isinstance(metric.data, Sum) is not is_gauge
        found[name] = {
            "".join(str(value) for value in point.attributes.values()): point.value
            for point in metric.data.data_points
        }
    return found


def check_conservation(now: Collected) -> None:
    total = {name: sum(values.values()) for name, values in now.items()}
    assert total["offered"] == total["accepted"] + total["refused"]
    assert total["accepted"] == (
        total["delivered"] + total["dropped"] + total["unconfirmed"] + total["held.events"]
    )


async def test_the_numbers_add_up_in_every_collection_while_other_threads_push() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    faults = Faults(fail={503: 0.2}, partial=0.2, drop_connection=0.1, retry_after="0")
    async with (
        collector(faults=faults, seed=3) as hive,
        Batcher(
            **hive.settings(), max_batch_events=20, flush_interval=0.01, backoff_base=0.01, backoff_max=0.02
        ) as batcher,
    ):
        observe(batcher, meter_provider=provider)
        is_over = threading.Event()

        def push_on() -> None:
            while not is_over.wait(0.0001):
                batcher.push(EVENT)

        pusher = threading.Thread(target=push_on)
        pusher.start()
        try:
            offered = set()
            for _ in range(100):
                now = await anyio.to_thread.run_sync(collect, reader)
                check_conservation(now)
                offered.add(now["offered"][""])
        finally:
            is_over.set()
            pusher.join()
        assert len(offered) > 50, "every collection has a snapshot of its own"
        hive.faults = Faults()
        await batcher.flush(20)
        now, truth = collect(reader), batcher.statistics()
    assert now["delivered"][""] == truth.delivered > 0
    assert now["retries"][""] == truth.retries
    assert now["last_delivery.timestamp"][""] == truth.last_delivery_at
    assert [state for state, value in now["endpoint"].items() if value] == [truth.endpoint]
    provider.shutdown()


async def test_instruments_do_not_keep_a_batcher() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    batcher = Batcher(api_key="hh_test")
    observe(batcher, meter_provider=provider)
    assert collect(reader)["offered"] == {"": 0}
    del batcher
    gc.collect()
    assert not any(collect(reader).values())
    provider.shutdown()
