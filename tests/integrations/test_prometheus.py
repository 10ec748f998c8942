"""The real prometheus_client, scraping a batcher at work."""

import re

import anyio
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from honeyhive_batcher import Batcher, BlockingBatcher
from honeyhive_batcher.integrations.prometheus import collector as prometheus_collector
from honeyhive_batcher.testing import Faults, collector, collector_in_thread

pytestmark = pytest.mark.anyio

EVENT = {
    "project": "Bees",
    "model": "gpt-4o",
    "provider": "openai",
    "messages": [{"role": "user", "content": "What is in a hive?"}],
    "response": {"role": "assistant", "content": "Honey."},
    "duration": 420.0,
    "usage": {"total_tokens": 19},
}
Scrape = dict[str, dict[str, float]]


def scrape(registry: CollectorRegistry) -> Scrape:
    """Return the values by name and label, from the text that Prometheus gets."""
    found: Scrape = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        found.setdefault(family.name, {})  # a metric without a value yet is there too
        for sample in family.samples:
            name = sample.name.removeprefix("honeyhive_batcher_")
            found.setdefault(name, {})["".join(sample.labels.values())] = sample.value
    return found


def check_conservation(now: Scrape) -> None:
    total = {name: sum(values.values()) for name, values in now.items()}
    assert total["offered_total"] == total["accepted_total"] + total["refused_total"]
    assert total["accepted_total"] == (
        total["delivered_total"] + total["dropped_total"] + total["unconfirmed_total"] + total["held_events"]
    )


async def test_the_numbers_add_up_in_every_scrape_of_a_run_with_faults() -> None:
    faults = Faults(fail={503: 0.2, 400: 0.1}, partial=0.2, drop_connection=0.1, retry_after="0")
    registry = CollectorRegistry()
    async with (
        collector(faults=faults, seed=7) as hive,
        Batcher(
            **hive.settings(),
            max_queue_events=60,
            max_batch_events=5,
            flush_interval=0.01,
            backoff_base=0.01,
            backoff_max=0.02,
            max_retries=3,
            on_ambiguous="drop",
        ) as batcher,
    ):
        registry.register(prometheus_collector(batcher))
        held = set()
        for round_ in range(60):
            for _ in range(10 if round_ % 10 else 100):
                batcher.push(EVENT)
            batcher.push("no event")
            now = scrape(registry)
            check_conservation(now)
            held.add(now["held_events"][""])
            await anyio.sleep(0.005)
        hive.faults = Faults()
        await batcher.flush(20)
        now, truth = scrape(registry), batcher.statistics()
        check_conservation(now)
    assert len(held) > 1, "it was scraped at work"
    assert now["refused_total"]["not_an_event"] == 60
    assert now["refused_total"]["queue_full"] > 0
    assert now["unconfirmed_total"][""] == truth.unconfirmed > 0
    assert now["delivered_total"][""] == truth.delivered > 0
    assert now["requests_total"][""] == truth.requests
    assert now["retries_total"][""] == truth.retries > 0
    assert sum(now["batches_total"].values()) == sum(truth.batches.values())
    assert now["last_delivery_timestamp_seconds"][""] == truth.last_delivery_at
    assert {state for state, value in now["endpoint"].items() if value} == {truth.endpoint}
    assert sum(now["endpoint"].values()) == 1


async def test_every_reason_is_there_before_it_happens_and_no_time_of_delivery_is() -> None:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(prometheus_collector(Batcher(api_key="hh_test")))
    now = scrape(registry)
    assert now["dropped_total"]["shutdown"] == 0
    reasons = {"queue_full", "too_large", "not_an_event", "filtered", "sampled", "closed"}
    assert set(now["refused_total"]) == reasons
    assert "last_delivery_timestamp_seconds" not in now
    names = re.findall(r"^# TYPE honeyhive_batcher_(\S+)", generate_latest(registry).decode(), re.MULTILINE)
    assert len(names) == 16


def test_a_blocking_batcher_is_scraped_as_well() -> None:
    registry = CollectorRegistry()
    with collector_in_thread() as hive, BlockingBatcher(**hive.settings()) as batcher:
        registry.register(prometheus_collector(batcher))
        batcher.push(EVENT)
        assert batcher.flush(10).ok
        now = scrape(registry)
        check_conservation(now)
    assert now["delivered_total"][""] == 1
