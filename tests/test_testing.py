"""The collector as a user's own tests have it."""

import asyncio
import json
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from honeyhive_batcher import collector as implementation
from honeyhive_batcher import testing
from honeyhive_batcher.errors import ConfigError
from honeyhive_batcher.testing import Answer, Collector, Faults, collector, collector_in_thread

EVENT = {"model_name": "m", "event_id": "e"}


def post_blocking(hive: Collector, *events: dict[str, Any]) -> Any:
    settings = hive.settings()
    request = urllib.request.Request(
        f"{settings['base_url']}/events/model/batch",
        data=json.dumps({"model_events": events}).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {settings['api_key']}"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


async def post(hive: Collector, *events: dict[str, Any]) -> int:
    settings = hive.settings()
    headers = {"Authorization": f"Bearer {settings['api_key']}"}
    async with (
        aiohttp.ClientSession(settings["base_url"], headers=headers) as client,
        client.post("/events/model/batch", json={"model_events": events}) as response,
    ):
        return response.status


@pytest.mark.anyio
async def test_a_collector_runs_in_the_same_loop_on_a_random_port() -> None:
    async with collector() as one, collector() as other:
        assert one.url != other.url
        assert await post(one, EVENT) == 200
        assert [stored.event for stored in one.events()] == [EVENT]
        assert other.events() == []


@pytest.mark.anyio
async def test_every_argument_reaches_it(tmp_path: Path) -> None:
    db = tmp_path / "dev.db"
    async with collector(faults=Faults(fail={429: 0.5}), api_key="hh_mine", db=db, seed=3) as hive:
        assert hive.settings() == {"base_url": hive.url, "api_key": "hh_mine"}
        assert hive.faults == Faults(fail={429: 0.5})
        first = [await post(hive, EVENT) for _ in range(20)]
    async with collector(faults=Faults(fail={429: 0.5}), seed=3) as hive:
        assert [await post(hive, EVENT) for _ in range(20)] == first
    assert set(first) == {200, 429}
    assert db.exists()


def test_a_collector_in_a_thread_answers_while_the_caller_blocks(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # packages that other tests use leave threads of their own behind
    with collector_in_thread(
        api_key="hh_mine", db=tmp_path / "dev.db", faults=Faults(no_echo=True), seed=1
    ) as hive:
        answer = post_blocking(hive, EVENT)
        assert answer["event_ids"] == [hive.events()[0].server_id] != ["e"]
        assert hive.settings()["api_key"] == "hh_mine"
    assert set(threading.enumerate()) <= before
    with pytest.raises(OSError, match=r"."):
        post_blocking(hive, EVENT)


def test_a_collector_in_a_thread_that_cannot_start_raises_in_the_caller(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="db: cannot use"),
        collector_in_thread(db=tmp_path / "missing" / "dev.db"),
    ):
        pytest.fail("started")


def test_what_raises_inside_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), collector_in_thread():
        _ = 1 / 0


def test_it_may_be_read_and_steered_from_many_threads_while_it_works() -> None:
    """Every event is seen exactly once, whoever looks in the meantime."""
    failures: list[BaseException] = []

    def send(number: int) -> None:
        try:
            for at in range(20):
                post_blocking(hive, {"model_name": "m", "event_id": f"{number}-{at}"})
                hive.script(None)
                hive.faults = Faults(latency=0.0001)
                assert f"{number}-{at}" in {stored.event_id for stored in hive.events()}
                assert hive.stats().events <= len(hive.requests())
        except BaseException as failure:
            failures.append(failure)

    with collector_in_thread() as hive:
        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert hive.stats().events == hive.stats().distinct_events == 160


def test_the_fixture_serves_a_synchronous_test(honeyhive_collector: Collector) -> None:
    assert post_blocking(honeyhive_collector, EVENT) == {"event_ids": ["e"], "success": True}
    assert [stored.event for stored in honeyhive_collector.events()] == [EVENT]


@pytest.mark.anyio
async def test_the_fixture_serves_an_asynchronous_test(honeyhive_collector: Collector) -> None:
    honeyhive_collector.script(Answer.refused(503))
    assert await post(honeyhive_collector, EVENT) == 503
    assert await post(honeyhive_collector, EVENT) == 200
    assert len(honeyhive_collector.events()) == 1


def test_the_fixture_serves_a_test_that_runs_its_own_loop(honeyhive_collector: Collector) -> None:
    """What pytest-asyncio does: the test's loop is none of the fixture's business."""
    assert asyncio.run(post(honeyhive_collector, EVENT)) == 200


def test_the_plugin_imports_nothing_slow() -> None:
    code = (
        "import sys, honeyhive_batcher.pytest_plugin\n"
        "slow = {'aiohttp', 'honeyhive_batcher.collector', 'honeyhive_batcher.testing'}\n"
        "assert not slow & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_everything_a_user_needs_has_a_name_here() -> None:
    own = {"CapturedEvent", "capture", "collector", "collector_in_thread"}
    assert set(testing.__all__) == own | set(implementation.__all__)
    for name in testing.__all__:
        assert getattr(testing, name).__doc__ or name in {"MAX_BODY_BYTES", "Step"}
