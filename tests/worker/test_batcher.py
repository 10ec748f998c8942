"""What the facade adds: settings from the environment, pushes that never raise, and whose session it is."""

import asyncio
import contextlib
import contextvars
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from honeyhive_batcher import Admission, Batcher, ConfigError, ModelEvent
from tests.fakes import FakeTransport, check_ledger, fates, make_batcher

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

EVENT = {"model": "gpt-4o"}


# Settings.


async def test_it_is_made_from_the_environment_and_arguments_win() -> None:
    told: list[tuple[str, ...]] = []
    environ = {
        "HH_API_KEY": "hh_test",
        "HH_TEST_MODE": "true",
        "HH_BATCH_SIZE": "7",
        "HH_FLUSH_INTERVAL": "9",
    }
    batcher = Batcher.from_env(environ, flush_interval=3, on_delivered=told.append)
    assert batcher.config.batch.max_batch_events == 7
    assert batcher.config.batch.flush_interval == 3
    async with batcher:
        assert batcher.push({**EVENT, "event_id": "mine"})
    assert told == [("mine",)]


async def test_settings_that_are_wrong_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match="api_key is missing"):
        Batcher()
    with pytest.raises(ConfigError, match="max_batch_events=0"):
        Batcher(api_key="hh_test", max_batch_events=0)
    with pytest.raises(ConfigError, match="api_key is missing"):
        Batcher.from_env({})


@pytest.mark.parametrize("name", ["before_send", "on_delivered", "on_dropped", "on_unconfirmed"])
async def test_a_callback_that_would_have_to_be_awaited_is_refused(name: str) -> None:
    async def callback(*_: object) -> None:
        raise AssertionError

    class Callback:
        async def __call__(self, *_: object) -> None:
            raise AssertionError

    hooks: dict[str, Any]
    for hooks in ({name: callback}, {name: Callback()}):
        with pytest.raises(ConfigError, match=f"^{name} is called, not awaited"):
            Batcher(api_key="hh_test", **hooks)
    hooks = {name: 7}
    with pytest.raises(ConfigError, match=f"^{name} is not callable"):
        Batcher(api_key="hh_test", **hooks)


# Pushes.


class Strange(dict[str, Any]):
    """Raises whatever is asked of it."""

    def get(self, *_: object) -> Any:
        raise ZeroDivisionError

    def __contains__(self, _: object) -> bool:
        raise ZeroDivisionError


async def test_whatever_is_pushed_it_does_not_raise_and_is_counted_once() -> None:
    async with make_batcher(FakeTransport()) as batcher:
        for event in (None, 7, "text", b"bytes", [EVENT], object(), Strange(EVENT)):
            assert not batcher.push(event)
        assert batcher.push(EVENT)
        numbers = check_ledger(batcher)
        assert (numbers.offered, numbers.accepted) == (8, 1)
        assert sum(numbers.refused.values()) == 7


async def test_what_happens_to_an_event_after_it_was_pushed_changes_nothing() -> None:
    transport = FakeTransport()
    event: dict[str, Any] = {"model": "before", "messages": []}
    async with make_batcher(transport) as batcher:
        batcher.push(event)
        event["model"] = "after"
        event["messages"].append("late")
    assert transport.sent[0].events[0]["model"] == "before"
    assert transport.sent[0].events[0]["messages"] == []
    assert "event_id" not in event


# Sessions.


def sessions_of(transport: FakeTransport) -> list[str | None]:
    """Return the session of each event, in the order in which they were sent."""
    ids: list[str | None] = []
    for sent in transport.sent:
        body = msgspec.json.decode(sent.request.body)
        ids += [body.get("session_properties", {}).get("session_id")] * len(body["model_events"])
    return ids


async def test_the_innermost_session_that_is_bound_counts_and_a_given_one_wins() -> None:
    transport = FakeTransport()
    async with make_batcher(transport, max_batch_events=1, max_in_flight=1) as batcher:
        given = batcher.session(session_id="given")
        with batcher.session(session_id="outer"):
            with batcher.session(session_id="inner"):
                batcher.push(EVENT)
                batcher.push(EVENT, session=given)
            batcher.push(EVENT)
        batcher.push(EVENT)
        assert await batcher.flush()
    assert sorted(map(str, sessions_of(transport))) == ["None", "given", "inner", "outer"]


async def test_an_event_with_a_session_of_its_own_is_left_alone() -> None:
    transport = FakeTransport()
    async with make_batcher(transport) as batcher:
        with batcher.session(session_id="bound"):
            batcher.push({**EVENT, "session_id": "own"})
            batcher.push(ModelEvent(model="m", session_id="own"))
            batcher.push({**EVENT, "session_id": None})
    assert sorted(map(str, sessions_of(transport))) == ["None", "None", "bound"]


async def test_a_session_of_another_batcher_is_none_of_its_business() -> None:
    ours, theirs = FakeTransport(), FakeTransport()
    async with make_batcher(ours) as batcher, make_batcher(theirs) as other:
        with batcher.session(session_id="ours"), other.session(session_id="theirs"):
            batcher.push(EVENT)
        with other.session(session_id="theirs"):
            batcher.push(EVENT)
    assert sorted(map(str, sessions_of(ours))) == ["None", "ours"]
    assert theirs.sent == []


async def test_a_session_goes_with_tasks_and_threads_that_begin_in_it() -> None:
    transport = FakeTransport()
    async with make_batcher(transport) as batcher:

        async def push() -> Admission:
            return batcher.push(EVENT)

        with batcher.session(session_id="bound"):
            task = asyncio.create_task(push())
            contextvars.copy_context().run(batcher.push, EVENT)
        assert await task
    assert sessions_of(transport) == ["bound", "bound"]


async def test_a_generator_that_is_closed_elsewhere_leaves_no_session_bound() -> None:
    transport = FakeTransport()
    async with make_batcher(transport) as batcher:

        def stream() -> Iterator[None]:
            with batcher.session(session_id="bound"):
                yield

        generator = stream()
        contextvars.copy_context().run(next, generator)
        generator.close()  # type: ignore[attr-defined]  # it is a generator
        batcher.push(EVENT)
    assert sessions_of(transport) == [None]


async def test_properties_that_are_too_large_or_odd_never_cost_the_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = FakeTransport()
    async with make_batcher(transport, max_batch_bytes=2048) as batcher:
        with batcher.session(session_id="large", inputs={"text": "x" * 5000}):
            batcher.push(EVENT)
        with batcher.session(session_id="odd", inputs={"number": float("nan"), "thing": object()}):
            batcher.push(EVENT)
        with batcher.session(session_id=7, inputs={"text": "\ud800"}):
            batcher.push(EVENT)
    assert sorted(map(str, sessions_of(transport))) == ["7", "large", "odd"]
    assert "larger than 1024 bytes" in caplog.text
    assert check_ledger(batcher).repaired >= 3


async def test_a_session_may_be_closed_twice_and_says_so() -> None:
    async with make_batcher(FakeTransport()) as batcher:
        session = batcher.session(session_id="mine")
        assert repr(session) == "<Session mine open>"
        session.close()
        session.close()
        assert repr(session) == "<Session mine closed>"


async def test_a_session_may_be_entered_twice() -> None:
    transport = FakeTransport()
    async with make_batcher(transport) as batcher:
        session = batcher.session(session_id="mine")
        with session, session:
            batcher.push(EVENT)
        batcher.push(EVENT)
    assert sorted(map(str, sessions_of(transport))) == ["None", "mine"]
    assert fates(batcher) == {"delivered": 2}


async def test_the_session_is_chosen_by_the_event_that_is_sent() -> None:
    """Not by the one before `before_send`."""
    transport = FakeTransport()
    async with make_batcher(transport, before_send=lambda event: {**event, "session_id": "own"}) as batcher:
        with batcher.session(session_id="bound"):
            batcher.push(EVENT)
            await batcher.put(EVENT)
    assert sessions_of(transport) == [None, None]


# The recursion limit.


@pytest.fixture
def untraced() -> Iterator[None]:
    """Whoever traces calls, to measure coverage, takes room on the stack, too."""
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)


def at_depth(frames: int, call: Callable[[], object]) -> None:
    """Call something with so many more frames on the stack."""
    if frames:
        at_depth(frames - 1, call)
    else:
        call()


def depth() -> int:
    """Return how many frames are on the stack."""
    return len(inspect.stack(0))


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("is_bound", [False, True])
@pytest.mark.parametrize("closed", [False, True])
async def test_a_push_at_the_edge_of_the_recursion_limit_is_counted_and_never_raises(
    is_bound: bool, closed: bool
) -> None:
    transport = FakeTransport()
    batcher = make_batcher(transport, max_batch_events=3)
    await batcher.start()
    if closed:
        await batcher.aclose()
    admissions: list[Admission] = []
    pushes = 0

    def push() -> None:
        nonlocal pushes
        pushes += 1
        admissions.append(batcher.push(EVENT, session=session))

    session = batcher.session() if is_bound else None
    room = sys.getrecursionlimit() - depth()
    for margin in range(60):
        with contextlib.suppress(RecursionError):  # where not even this test fits
            at_depth(room - margin, push)
    await batcher.flush()
    numbers = check_ledger(batcher)
    # Where there was no room for the call of `push` itself, it was never called.
    assert len(admissions) <= pushes <= len(admissions) + 1
    assert numbers.offered == len(admissions)
    assert numbers.accepted == numbers.delivered == admissions.count(Admission.ACCEPTED)
    assert closed or 10 < numbers.accepted < 60
    await batcher.aclose()


@pytest.mark.usefixtures("untraced")
async def test_a_wake_up_that_does_not_fit_on_the_stack_is_made_up_for_by_the_next_push() -> None:
    transport = FakeTransport()
    async with make_batcher(transport) as batcher:
        room = sys.getrecursionlimit() - depth()
        for margin in range(60):
            with contextlib.suppress(RecursionError):
                at_depth(room - margin, lambda: batcher.push(EVENT))
            batcher.push(EVENT)
            await asyncio.sleep(1.5)
            assert batcher.statistics().held == 0
        assert batcher.statistics().delivered > 70
