"""A model call timed by hand: as `with`, as `async with`, and as a decorator of every kind of function."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest

from honeyhive_batcher import Admission, Batcher, BlockingBatcher, ModelEvent, Session
from honeyhive_batcher.claims import claim, is_claimed
from honeyhive_batcher.model_call import TimesCalls
from honeyhive_batcher.testing import Collector, collector

pytestmark = pytest.mark.anyio

WHOLE = {"project": "My project", "model": "gpt-4o", "provider": "openai", "messages": [], "usage": {}}


class Pushed(TimesCalls):
    """Keeps what is pushed."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def push(self, event: object, *, session: Session | None = None) -> Admission:
        assert isinstance(event, dict)
        self.events.append(event)
        return Admission.ACCEPTED

    @property
    def one(self) -> dict[str, Any]:
        (event,) = self.events
        return event


@pytest.fixture
def pushed() -> Pushed:
    return Pushed()


def test_a_block_is_one_event_with_its_times_and_what_was_set_in_it(pushed: Pushed) -> None:
    before = 1e3 * time.time()
    with pushed.model_call(model="gpt-4o", provider="openai", messages=[{"role": "user"}]) as call:
        assert not pushed.events
        time.sleep(0.02)
        call.response = {"role": "assistant"}
        call.usage = {"total_tokens": 3}
        call.cost = 0.5
    event = pushed.one
    assert event["model"] == "gpt-4o"
    assert event["provider"] == "openai"
    assert event["messages"] == [{"role": "user"}]
    assert event["response"] == {"role": "assistant"}
    assert event["usage"] == {"total_tokens": 3}
    assert event["cost"] == 0.5
    assert event["duration"] >= 20
    assert event["start_time"] >= before - 1
    assert event["end_time"] == event["start_time"] + event["duration"]
    assert "error" not in event
    assert set(event) <= {"event_type", *ModelEvent.__struct_fields__}


async def test_an_asynchronous_block_is_the_same(pushed: Pushed) -> None:
    async with pushed.model_call(model="gpt-4o") as call:
        await asyncio.sleep(0)
        call.response = "Honey."
    assert pushed.one["response"] == "Honey."


def test_an_exception_is_recorded_and_goes_on(pushed: Pushed) -> None:
    with pytest.raises(ValueError, match="too hot"), pushed.model_call(model="m"):
        raise ValueError("too hot")
    assert pushed.one["error"] == "ValueError: too hot"


def test_an_exception_without_a_text_or_with_one_that_raises_is_named(pushed: Pushed) -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    for error in (KeyError(), OddError(), KeyboardInterrupt()):
        with pytest.raises(type(error)), pushed.model_call():
            raise error
    assert [event["error"] for event in pushed.events] == ["KeyError", "OddError", "KeyboardInterrupt"]


async def test_a_cancellation_is_recorded_and_goes_on(pushed: Pushed) -> None:
    async def call() -> None:
        async with pushed.model_call(model="m"):
            await asyncio.sleep(60)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pushed.one["error"] == "CancelledError"


def test_what_is_given_wins_over_what_is_stamped(pushed: Pushed) -> None:
    with pushed.model_call(duration=1.0, start_time=2.0) as call:
        call.error = "refused"
        call.end_time = 3.0
    event = pushed.one
    assert (event["duration"], event["start_time"], event["end_time"]) == (1.0, 2.0, 3.0)
    assert event["error"] == "refused"


def test_names_that_are_no_fields_of_an_event_travel_too(pushed: Pushed) -> None:
    with pushed.model_call(**{"take": 1, "a-b": 2}) as call:
        call.take("Honey.")
        call.tier = "gold"  # type: ignore[attr-defined]  # the route is open
    event = pushed.one
    assert (event["take"], event["a-b"], event["tier"]) == (1, 2, "gold")
    assert event["response"] == "Honey."


async def test_a_decorated_function_is_a_call_each_time(pushed: Pushed) -> None:
    @pushed.model_call(model="m")
    async def ask(messages: list[Any], *, hot: bool = False) -> str:
        """Ask."""
        if hot:
            raise ValueError("hot")
        return f"{len(messages)}"

    assert [*await asyncio.gather(ask([1]), ask([1, 2]))] == ["1", "2"]
    with pytest.raises(ValueError, match="hot"):
        await ask([], hot=True)
    assert ask.__doc__ == "Ask."
    assert [(event.get("response"), event["messages"]) for event in pushed.events] == [
        ("1", [1]),
        ("2", [1, 2]),
        (None, []),
    ]
    assert "error" not in pushed.events[1]
    assert pushed.events[2]["error"] == "ValueError: hot"


def test_a_synchronous_function_too(pushed: Pushed) -> None:
    @pushed.model_call(messages="mine")
    def ask(messages: list[Any]) -> object:
        return messages or ask  # no JSON in a function

    assert ask([1]) == [1]
    assert ask([]) is ask
    with pytest.raises(TypeError):
        ask()  # type: ignore[call-arg]  # that is what is tried
    assert [event.get("response") for event in pushed.events] == [[1], None, None]
    assert [event["messages"] for event in pushed.events] == ["mine"] * 3


def test_a_function_called_wrongly_says_so_itself(pushed: Pushed) -> None:
    @pushed.model_call()
    def ask(question: str) -> str:
        return question

    with pytest.raises(TypeError, match="unexpected keyword"):
        ask(answer=1)  # type: ignore[call-arg]  # that is what is tried
    assert pushed.one["error"].startswith("TypeError")


def test_a_generator_is_one_call_whose_texts_are_joined(pushed: Pushed) -> None:
    @pushed.model_call()
    def stream() -> Generator[str, None, None]:
        yield "Ho"
        yield "ney"

    assert list(stream()) == ["Ho", "ney"]
    assert pushed.one["response"] == "Honey"
    assert "metadata" not in pushed.one


@pytest.mark.parametrize("ending", ["close", "drop"])
def test_a_generator_that_is_left_early_is_incomplete(pushed: Pushed, ending: str) -> None:
    is_over = []

    @pushed.model_call(metadata={"tier": "gold"})
    def stream() -> Generator[object, None, None]:
        try:
            yield {"delta": 1}
            yield "ney"
        finally:
            is_over.append(True)

    chunks = stream()
    assert next(chunks) == {"delta": 1}
    if ending == "close":
        chunks.close()
    del chunks
    assert is_over == [True]
    assert pushed.one["response"] == [{"delta": 1}]
    assert pushed.one["metadata"] == {"tier": "gold", "incomplete": True}
    assert "error" not in pushed.one


async def test_an_asynchronous_generator_too(pushed: Pushed) -> None:
    @pushed.model_call()
    async def stream(*, fails: bool) -> AsyncGenerator[str, None]:
        yield "Ho"
        if fails:
            raise OSError("gone")
        yield "ney"

    assert [part async for part in stream(fails=False)] == ["Ho", "ney"]
    with pytest.raises(OSError, match="gone"):
        [part async for part in stream(fails=True)]
    early = stream(fails=False)
    assert await anext(early) == "Ho"
    await early.aclose()
    assert [event["response"] for event in pushed.events] == ["Honey", "Ho", "Ho"]
    assert pushed.events[1]["error"] == "OSError: gone"
    assert pushed.events[2]["metadata"] == {"incomplete": True}


async def test_the_event_belongs_to_the_session_in_which_the_call_began() -> None:
    async with collector() as hive:
        async with Batcher(**hive.settings()) as batcher:
            with batcher.session(session_name="Ask") as session:
                call = batcher.model_call(**WHOLE, response="Honey.").__enter__()
            call.__exit__(None, None, None)
            assert await batcher.flush()
        (stored,) = hive.events()
        assert stored.session_id == session.session_id


def test_a_blocking_batcher_times_calls_too(honeyhive_collector: Collector) -> None:
    with BlockingBatcher(**honeyhive_collector.settings()) as batcher, batcher.model_call(**WHOLE) as call:
        call.response = "Honey."
    (stored,) = honeyhive_collector.events()
    assert stored.event["response"] == "Honey."


async def test_a_call_that_failed_arrives() -> None:
    async with collector() as hive:
        async with Batcher(**hive.settings(), project="My project") as batcher:
            with pytest.raises(OSError, match="gone"):
                async with batcher.model_call(model="m", provider="p"):
                    raise OSError("gone")
        (stored,) = hive.events()
    assert stored.error == "OSError: gone"


def test_what_raises_when_it_is_looked_at_costs_the_caller_nothing(pushed: Pushed) -> None:
    class Odd:
        def __getattribute__(self, name: str) -> Any:
            raise asyncio.CancelledError if name == "model_dump" else RuntimeError(name)

    odd = Odd()

    class UnreadableError(Exception):
        def __str__(self) -> str:
            raise asyncio.CancelledError

    @pushed.model_call()
    def ask() -> Odd:
        return odd

    @pushed.model_call()
    def stream() -> Generator[Odd, None, None]:
        yield odd

    def unsigned(messages: list[Any]) -> str:
        return "Honey."

    unsigned.__signature__ = odd  # type: ignore[attr-defined]  # whatever a decorator leaves there
    assert ask() is odd
    assert [each is odd for each in stream()] == [True]
    assert pushed.model_call()(unsigned)([1]) == "Honey."
    with pytest.raises(UnreadableError), pushed.model_call():
        raise UnreadableError
    assert ["response" in event for event in pushed.events] == [False, False, True, False]
    assert pushed.events[3]["error"] == "UnreadableError"


def test_within_a_call_that_another_adapter_tells_of_nothing_is_pushed(pushed: Pushed) -> None:
    with claim(pushed):
        with pushed.model_call(model="gpt-4o") as call:
            call.response = "Honey."
        assert not pushed.events
    with pushed.model_call(model="outer"), pushed.model_call(model="inner"):
        assert is_claimed(pushed)
    assert [event["model"] for event in pushed.events] == ["inner", "outer"]
    assert not is_claimed(pushed)
