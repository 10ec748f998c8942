"""Lost at shutdown: what users of other exporters complained about, and what must not happen here."""

import asyncio

import pytest

from honeyhive_batcher import Batcher
from honeyhive_batcher.testing import collector, collector_in_thread
from tests.fakes import fates
from tests.programs import run_program

SHORT_PROGRAM = """
import asyncio, os
from honeyhive_batcher import Batcher

batcher = Batcher.from_env(flush_interval=3600)

def push(name):
    for number in range(3):
        assert batcher.push({"model_name": "gpt-4o", "event_name": f"{name} {number}"})

async def close():
    async with batcher:
        push("closed")

async def drain():
    await batcher.start()
    push("flushed")
    assert (await batcher.flush()).delivered == 3
    os._exit(0)  # nothing of an orderly end follows

asyncio.run(close())
asyncio.run(drain())
"""


def test_a_short_program_loses_nothing() -> None:
    """Logs of a program that ended before the timer were lost, and there was no public way to drain them
    (BerriAI/litellm#14212, BerriAI/litellm#25978).
    """
    with collector_in_thread() as hive:
        done = run_program(SHORT_PROGRAM, hive.url)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        names = [stored.event_name for stored in hive.events()]
        assert names == [f"{name} {number}" for name in ("closed", "flushed") for number in range(3)]


@pytest.mark.anyio
async def test_flushing_and_closing_do_what_they_say() -> None:
    """A documented flush did nothing, and closing in batching mode did not flush
    (influxdata/influxdb-client-python#697, influxdata/influxdb-client-python#504).
    """
    async with collector() as hive:
        batcher = Batcher(**hive.settings(), flush_interval=3600)
        await batcher.start()
        assert batcher.push({"model_name": "gpt-4o", "event_name": "flushed"})
        assert await batcher.flush()
        assert [stored.event_name for stored in hive.events()] == ["flushed"]
        assert batcher.push({"model_name": "gpt-4o", "event_name": "closed"})
        await batcher.aclose()
        assert [stored.event_name for stored in hive.events()] == ["flushed", "closed"]
    assert fates(batcher) == {"delivered": 2}


POOL = """
import asyncio, multiprocessing
import aiohttp  # once, and not in every child
from honeyhive_batcher import Batcher

batcher = Batcher.from_env(flush_interval=3600)

async def log(number):
    async with batcher:
        assert batcher.push({"model_name": "gpt-4o", "event_name": f"{number:02}"})
        return bool(await batcher.flush())

def task(number):
    return asyncio.run(log(number))

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        assert all(pool.map(task, range(10), chunksize=1))
"""


def test_a_child_of_a_pool_that_is_recycled_after_each_task_loses_none_of_them() -> None:
    """Of ten tasks in children that are replaced after each task one span arrived, without a warning
    (open-telemetry/opentelemetry-python-contrib#4916).
    """
    with collector_in_thread() as hive:
        done = run_program(POOL, hive.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(str(stored.event_name) for stored in hive.events()) == [f"{n:02}" for n in range(10)]


FORKED = """
import asyncio, multiprocessing
from honeyhive_batcher import Batcher

batcher = Batcher.from_env(flush_interval=3600)

async def log(name):
    async with batcher:
        assert batcher.push({"model_name": "gpt-4o", "event_name": name})

def child():
    asyncio.run(log("child"))

async def main():
    async with batcher:
        assert batcher.push({"model_name": "gpt-4o", "event_name": "parent"})
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        await asyncio.to_thread(process.join, 20)
        assert process.exitcode == 0, process.exitcode

asyncio.run(main())
"""


def test_a_process_that_was_forked_sends_its_events_without_an_atexit() -> None:
    """What a child of multiprocessing logged was not exported, because children end without `atexit`
    (pydantic/logfire#779).
    """
    with collector_in_thread() as hive:
        done = run_program(FORKED, hive.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(str(stored.event_name) for stored in hive.events()) == ["child", "parent"]


def test_what_a_program_forgot_to_close_is_delivered_when_its_loop_ends() -> None:
    """The same complaint about a program without any orderly end of its own (BerriAI/litellm#14212)."""

    async def forget(url: str) -> Batcher:
        batcher = await Batcher(api_key="hh_test", base_url=url, flush_interval=3600).start()
        assert batcher.push({"model_name": "gpt-4o"})
        return batcher

    with collector_in_thread() as hive:
        batcher = asyncio.run(forget(hive.url))
        assert len(hive.events()) == 1
        asyncio.run(batcher.aclose())
    assert fates(batcher) == {"delivered": 1}
