"""The alarm wakes its sleeper once, from wherever it is rung, and never writes to the loop's pipe in vain."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from honeyhive_batcher.runtime.alarm import Alarm

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]


@pytest.fixture
def rings() -> list[str]:
    """By which of the loop's doors it was asked to ring."""
    return []


@pytest.fixture
async def alarm(rings: list[str], monkeypatch: pytest.MonkeyPatch) -> Alarm:
    loop = asyncio.get_running_loop()
    alarm = Alarm(loop, loop.time)
    alarm.set()

    def watched(name: str) -> Callable[..., Any]:
        door = getattr(loop, name)

        def passed(callback: Any, *arguments: Any, **more: Any) -> Any:
            if callback == alarm.ring:
                rings.append(name)
            return door(callback, *arguments, **more)

        return passed

    for name in ("call_soon", "call_soon_threadsafe"):
        monkeypatch.setattr(loop, name, watched(name))
    return alarm


async def test_a_task_of_its_loop_rings_without_a_word_to_the_selector(
    alarm: Alarm, rings: list[str]
) -> None:
    alarm.ring_soon()
    await alarm.sleep_until(None)
    assert rings == ["call_soon"]


async def test_whoever_may_come_while_the_loop_sleeps_rouses_it(alarm: Alarm, rings: list[str]) -> None:
    """As a signal handler does, or a `__del__`: they run in the loop's thread, and in no task of it."""
    asyncio.get_running_loop().call_later(1.0, alarm.ring_soon)
    await alarm.sleep_until(None)
    assert "call_soon_threadsafe" in rings


async def test_another_thread_rouses_it(alarm: Alarm, rings: list[str]) -> None:
    thread = threading.Thread(target=alarm.ring_soon)
    thread.start()
    thread.join()
    await alarm.sleep_until(None)
    assert "call_soon_threadsafe" in rings


async def test_a_task_of_another_loop_rouses_it(alarm: Alarm, rings: list[str]) -> None:
    async def ring() -> None:
        alarm.ring_soon()

    thread = threading.Thread(target=lambda: asyncio.run(ring()))
    thread.start()
    thread.join()
    await alarm.sleep_until(None)
    assert "call_soon_threadsafe" in rings


async def test_it_is_rung_once_until_somebody_listens_again(alarm: Alarm, rings: list[str]) -> None:
    for _ in range(3):
        alarm.ring_soon()
    assert rings == ["call_soon"]
    await alarm.sleep_until(None)
    alarm.ring_soon()  # it is still awake
    assert rings == ["call_soon"]
    alarm.set()
    alarm.ring_soon()
    assert rings == ["call_soon", "call_soon"]
    await alarm.sleep_until(None)


@pytest.mark.parametrize("error", [RecursionError(), KeyboardInterrupt(), SystemExit()])
async def test_what_keeps_it_from_being_rung_is_told_and_the_next_one_rings(
    error: BaseException, alarm: Alarm, rings: list[str]
) -> None:
    with mock.patch.object(asyncio, "current_task", side_effect=error), pytest.raises(type(error)):
        alarm.ring_soon()
    assert rings == []
    alarm.ring_soon()
    assert rings == ["call_soon"]
    await alarm.sleep_until(None)


async def test_where_its_loop_is_closed_nobody_is_woken_and_nothing_is_said() -> None:
    other = asyncio.new_event_loop()
    alarm = Alarm(other, other.time)
    alarm.set()
    other.close()
    alarm.ring_soon()
    alarm.ring_soon()
