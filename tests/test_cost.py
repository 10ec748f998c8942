"""Costs are filled in off the loop, once, and keep no event from being sent. In real time: with threads."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from honeyhive_batcher import Batcher, BlockingBatcher, ConfigError
from honeyhive_batcher.core.model import Response
from honeyhive_batcher.integrations.genai_prices import GenaiPrices, cost
from honeyhive_batcher.testing import collector_in_thread
from tests.fakes import OK, RESET, FakeTransport, check_ledger, fates, make_batcher

EVENT = {"model": "m", "provider": "p", "usage": {"total_tokens": 3}}


async def sent_with(
    price: Callable[[dict[str, Any]], Any], *events: Any, **settings: Any
) -> list[dict[str, Any]]:
    """Push events to a batcher with this function, and return them as they were sent."""
    transport = FakeTransport()
    async with make_batcher(transport, cost=price, **settings) as batcher:
        for event in events:
            assert batcher.push(event)
    check_ledger(batcher)
    assert fates(batcher) == {"delivered": len(events)}
    assert batcher.statistics().held_bytes == 0
    return [event for sent in transport.sent for event in sent.events]


def test_what_the_function_says_is_sent_as_a_number() -> None:
    answers: list[Any] = [0.25, 1, Decimal("0.000001"), 0, None]
    seen: list[dict[str, Any]] = []
    threads = set()

    def price(event: dict[str, Any]) -> Any:
        seen.append(event)
        threads.add(threading.current_thread())
        return answers[len(seen) - 1]

    sent = asyncio.run(sent_with(price, *[{**EVENT, "event_id": str(n)} for n in range(5)]))
    assert [event.get("cost", "none") for event in sent] == [0.25, 1.0, 1e-06, 0.0, "none"]
    assert [type(event["cost"]) for event in sent[:4]] == [float] * 4
    assert seen[0] == {**EVENT, "event_id": "0"}
    assert threading.main_thread() not in threads
    assert len(threads) == 1


def test_a_cost_that_was_given_is_not_overwritten() -> None:
    given = [
        {**EVENT, "cost": 7.5},
        {**EVENT, "cost": "7.5"},
        {**EVENT, "cost": None},
        {**EVENT, "metadata": {"cost": 7.5}},
        {**EVENT, "metadata": {"cost": None}},
        {**EVENT, "metadata": None},
    ]
    sent = asyncio.run(sent_with(lambda _: 1.0, *given))
    assert [event.get("cost", "none") for event in sent] == [7.5, "7.5", None, "none", 1.0, 1.0]


@pytest.mark.parametrize("answer", ["dear", object(), float("nan"), float("inf"), [1]], ids=range(5))
def test_what_is_no_number_is_left_out_and_counted(answer: Any) -> None:
    async def main() -> None:
        transport = FakeTransport()
        async with make_batcher(transport, cost=lambda _: answer) as batcher:
            batcher.push(EVENT)
        assert "cost" not in transport.sent[0].events[0]
        assert batcher.statistics().callback_errors == 1

    asyncio.run(main())


@pytest.mark.parametrize("error", [ZeroDivisionError(), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_function_that_raises_costs_the_price_only_and_is_counted(error: BaseException) -> None:
    def price(event: dict[str, Any]) -> float:
        if event["event_id"] == "bad":
            raise error
        return 0.5

    async def main() -> None:
        transport = FakeTransport()
        async with make_batcher(transport, cost=price) as batcher:
            for name in ("good", "bad", "last"):
                batcher.push({**EVENT, "event_id": name})
        (sent,) = transport.sent
        assert [event.get("cost") for event in sent.events] == [0.5, None, 0.5]
        assert check_ledger(batcher).callback_errors == 1

    asyncio.run(main())


def test_retries_send_the_same_bytes_and_ask_once() -> None:
    asked: list[str] = []

    def price(event: dict[str, Any]) -> float:
        asked.append(event["event_id"])
        return 0.1 * len(asked)

    async def main() -> None:
        transport = FakeTransport(RESET, Response(status=503), OK)
        async with make_batcher(
            transport,
            cost=price,
            backoff_base=0.01,
        ) as batcher:
            for name in "ab":
                batcher.push({**EVENT, "event_id": name})
            assert (await batcher.flush()).delivered == 2
        first, *others = [sent.request.body for sent in transport.sent]
        assert others == [first] * 2
        assert asked == ["a", "b"]

    asyncio.run(main())


def test_the_bounds_hold() -> None:
    async def main() -> None:
        transport = FakeTransport()
        bound = 2048
        batcher = make_batcher(
            transport,
            cost=lambda _: 0.123456789,
            max_batch_bytes=bound,
            max_event_bytes=1000,
            max_queue_bytes=20_000,
        )
        async with batcher:
            while batcher.push({"inputs": "x" * 700}):
                assert batcher.statistics().held_bytes <= 20_000
            assert batcher.statistics().held_bytes > 19_000
            assert batcher.push({"event_id": "e", "a": "x" * 946}).value == "too_large"
            assert batcher.push({"event_id": "e", "a": "x" * 945}).value == "queue_full"
        assert max(len(sent.request.body) for sent in transport.sent) <= bound
        assert max(len(sent.request.body) for sent in transport.sent) > bound - 900
        assert all(event["cost"] == 0.123456789 for sent in transport.sent for event in sent.events)

    asyncio.run(main())


def test_a_slow_function_does_not_hold_the_loop_up() -> None:
    def price(_: object) -> float:
        time.sleep(0.3)
        return 1.0

    async def main() -> None:
        transport = FakeTransport()
        async with make_batcher(transport, cost=price, flush_interval=0) as batcher:
            batcher.push(EVENT)
            longest = 0.0
            while not transport.sent:
                began = time.perf_counter()
                await asyncio.sleep(0)
                longest = max(longest, time.perf_counter() - began)
            assert longest < 0.2
            assert transport.sent[0].events[0]["cost"] == 1.0

    asyncio.run(main())


def test_a_function_that_hangs_holds_delivery_up_once_and_for_a_while_only() -> None:
    go_on = threading.Event()

    def price(event: dict[str, Any]) -> float:
        if event["event_id"] == "hangs":
            go_on.wait(30)
        return 1.0

    async def main() -> None:
        transport = FakeTransport()
        batcher = make_batcher(transport, cost=price, flush_interval=0, shutdown_timeout=1)
        async with batcher:
            began = time.monotonic()
            batcher.push({**EVENT, "event_id": "first"})
            batcher.push({**EVENT, "event_id": "hangs"})
            batcher.push({**EVENT, "event_id": "behind"})
            assert (await batcher.flush(10)).delivered == 3
            assert 0.4 < time.monotonic() - began < 5
            # What could be computed in time is there.
            assert [event.get("cost") for event in transport.sent[0].events] == [1.0, None, None]
            assert batcher.statistics().callback_errors == 2
            began = time.monotonic()
            batcher.push({**EVENT, "event_id": "meanwhile"})
            assert (await batcher.flush(10)).delivered == 1
            assert time.monotonic() - began < 0.4
            assert batcher.statistics().callback_errors == 3
            go_on.set()
            for number in range(500):
                batcher.push({**EVENT, "event_id": f"later {number}"})
                await batcher.flush(10)
                if "cost" in transport.sent[-1].events[0]:
                    break
                await asyncio.sleep(0.01)
            assert transport.sent[-1].events[0]["cost"] == 1.0

    asyncio.run(main())


def test_closing_before_the_price_is_known_drops_what_was_surely_not_sent() -> None:
    go_on = threading.Event()

    async def main() -> None:
        transport = FakeTransport()
        batcher = make_batcher(transport, cost=lambda _: go_on.wait(30) and 1.0, shutdown_timeout=60)
        await batcher.start()
        batcher.push(EVENT)
        await batcher.aclose(timeout=0.2)
        assert transport.sent == []
        assert fates(batcher) == {"shutdown": 1}

    try:
        asyncio.run(main())
    finally:
        go_on.set()


def test_a_run_that_ends_lets_its_thread_end_and_the_next_has_another() -> None:
    async def main() -> None:
        transport = FakeTransport()
        batcher = make_batcher(transport, cost=lambda _: 1.0)
        for _ in range(2):
            async with batcher:
                batcher.push(EVENT)
        assert [sent.events[0]["cost"] for sent in transport.sent] == [1.0, 1.0]

    asyncio.run(main())
    deadline = time.monotonic() + 10
    while any(thread.name == "honeyhive_batcher.pricing" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_loop_that_ends_in_the_midst_of_it_costs_nothing() -> None:
    go_on = threading.Event()
    transport = FakeTransport()
    kept: list[Batcher] = []

    async def first() -> None:
        kept.append(make_batcher(transport, cost=lambda _: go_on.wait(30) and 2.0, shutdown_timeout=60))
        await kept[0].start()
        kept[0].push(EVENT)
        await asyncio.sleep(0.1)
        kept[0]._intake.raise_barrier()
        await asyncio.sleep(0.2)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(first())
    loop.close()
    go_on.set()

    async def second() -> None:
        kept[0]._clock = asyncio.get_running_loop().time
        async with kept[0]:
            assert (await kept[0].flush(20)).ok

    asyncio.run(second())
    assert fates(kept[0]) == {"delivered": 1}
    assert [sent.events[0]["cost"] for sent in transport.sent] == [2.0]


def test_without_a_thread_events_go_without_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        transport = FakeTransport()
        batcher = make_batcher(transport, cost=lambda _: 1.0, shutdown_timeout=0.2)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            await batcher.start()
        batcher.push(EVENT)
        assert (await batcher.flush(5)).ok
        await batcher.aclose()
        assert batcher.statistics().callback_errors == 1

    asyncio.run(main())


def test_a_blocking_batcher_takes_it_too_and_the_end_of_a_session_needs_none() -> None:
    with collector_in_thread() as hive:
        batcher = BlockingBatcher(**hive.settings(), cost=lambda _: 0.5)
        with batcher, batcher.session(session_id="s") as session:
            batcher.push({"event_name": "e", "event_type": "model", "model_name": "m"})
            batcher.flush()
            session.outputs = {"a": 1}
        (stored,) = hive.events()
        assert stored.event["cost"] == 0.5
        assert batcher.statistics().delivered == 2


def test_it_has_to_be_a_plain_function() -> None:
    async def price(_: dict[str, Any]) -> float:
        return 0.0

    with pytest.raises(ConfigError, match="cost is called, not awaited"):
        Batcher(api_key="hh_test", cost=price)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(ConfigError, match="cost is not callable"):
        Batcher.from_env({"HH_API_KEY": "k"}, cost=5)


HANGS = """
import asyncio, threading
from honeyhive_batcher import Batcher

async def main():
    hang = lambda _: threading.Event().wait()
    async with Batcher(test_mode=True, shutdown_timeout=0.4, cost=hang) as batcher:
        batcher.push({"model": "m"})

asyncio.run(main())
print("ended")
"""


def test_a_function_that_hangs_does_not_keep_the_program_from_ending() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
    assert time.monotonic() - began < 15


# genai-prices.

CLAUDE = {
    "prompt_tokens": 1900,
    "completion_tokens": 700,
    "prompt_tokens_details": {"cached_tokens": 400, "cache_creation_tokens": 300},
}
CLAUDES_OWN = {
    "input_tokens": 1200,
    "output_tokens": 700,
    "cache_read_input_tokens": 400,
    "cache_creation_input_tokens": 300,
}


def test_anthropics_cache_costs_the_same_in_whoevers_words() -> None:
    told = [
        cost({"model": "claude-sonnet-4-5", "provider": "anthropic", "usage": usage})
        for usage in (CLAUDE, CLAUDES_OWN)
    ]
    plain = cost(
        {
            "model": "claude-sonnet-4-5",
            "provider": "anthropic",
            "usage": {"prompt_tokens": 1900, "completion_tokens": 700},
        }
    )
    assert told[0] == told[1]
    assert told[0] is not None
    assert plain is not None
    assert 0 < told[0] < plain


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("azure", "gpt-4o"),
        ("bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("openrouter", "openai/gpt-4o"),
        ("vertex_ai", "claude-sonnet-4-5"),
        ("groq", "llama-3.3-70b-versatile"),
    ],
)
def test_the_names_that_the_adapters_give_to_providers_have_prices(provider: str, model: str) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    assert cost({"model": model, "provider": provider, "usage": usage})


CACHED = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
RESPONSES = {"input_tokens": 1000, "output_tokens": 100, "input_tokens_details": {"cached_tokens": 400}}
ANTHROPIC = {"input_tokens": 600, "output_tokens": 100, "cache_read_input_tokens": 400}


@pytest.mark.parametrize(
    ("event", "dollars"),
    [
        # gpt-4o: 2.5, from the cache 1.25, out 10 dollars a million; what is cached is among the prompt's.
        (
            {"model": "gpt-4o", "provider": "openai", "usage": CACHED},
            (600 * 2.5 + 400 * 1.25 + 100 * 10) / 1e6,
        ),
        (
            {"model": "gpt-4o", "provider": "OpenAI", "usage": RESPONSES},
            (600 * 2.5 + 400 * 1.25 + 100 * 10) / 1e6,
        ),
        ({"model_name": "gpt-4o", "config": {"provider": "openai"}, "usage": CACHED}, 0.003),
        ({"config": {"model": "gpt-4o", "provider": "openai"}, "usage": CACHED}, 0.003),
        # claude-sonnet-4: 3, from the cache 0.3, out 15; what is cached is beside the input.
        (
            {"model": "claude-sonnet-4-20250514", "provider": "anthropic", "usage": ANTHROPIC},
            (600 * 3 + 400 * 0.3 + 100 * 15) / 1e6,
        ),
        ({"model": "gpt-4o", "provider": "openai", "usage": CACHED, "start_time": 1.76e12}, 0.003),
        ({"model": "gpt-4o", "provider": "openai", "usage": CACHED, "start_time": 1e300}, 0.003),
        ({"model": "gpt-4o", "provider": "openai", "usage": CACHED, "start_time": "now"}, 0.003),
        ({"model": "no such model", "provider": "openai", "usage": CACHED}, None),
        ({"model": "gpt-4o", "provider": "nobody", "usage": CACHED}, None),
        ({"model": "gpt-4o", "provider": "openai", "usage": {"total_tokens": 5}}, None),
        ({"model": "gpt-4o", "provider": "openai"}, None),
        ({"model": "gpt-4o", "usage": CACHED}, None),
        ({"provider": "openai", "usage": CACHED, "model": 5}, None),
    ],
)
def test_the_price_list(event: dict[str, Any], dollars: float | None) -> None:
    assert cost(event) == (None if dollars is None else pytest.approx(dollars, rel=1e-9))


def test_a_provider_that_counts_in_a_way_of_its_own_is_asked_in_that() -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    price = cost({"model": "mistral-large-latest", "provider": "mistral", "usage": usage})
    assert price is not None
    assert 0 < price < 0.1


def test_when_the_package_is_missing_it_says_so_when_the_batcher_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    for kind in (Batcher, BlockingBatcher):
        with pytest.raises(ImportError, match=r"pip install 'honeyhive-batcher\[cost\]'"):
            kind(api_key="hh_test", cost=cost)


IMPORTS = """
import asyncio, sys, threading
from honeyhive_batcher import Batcher
from honeyhive_batcher.integrations.genai_prices import cost

batcher = Batcher(api_key="hh_test", test_mode=True, cost=cost)
assert "genai_prices" not in sys.modules

async def main():
    async with batcher:
        for _ in range(2000):
            if "genai_prices" in sys.modules:
                print("warm")
                return
            await asyncio.sleep(0.01)

asyncio.run(main())
"""


def test_the_package_is_imported_in_the_thread_when_a_batcher_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "warm\n"


def test_a_warm_up_that_fails_is_no_failure() -> None:
    class Price:
        def warm(self) -> None:
            raise ZeroDivisionError

        def __call__(self, _: dict[str, Any]) -> float:
            return 0.5

    assert asyncio.run(sent_with(Price(), EVENT))[0]["cost"] == 0.5
    assert isinstance(cost, GenaiPrices)
    assert json.dumps(cost({"model": "gpt-4o", "provider": "openai", "usage": CACHED})) == "0.003"
