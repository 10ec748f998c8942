"""Key and content show nowhere and go nowhere else; hostile answers, settings and events change nothing."""

import asyncio
import base64

import pytest

from honeyhive_batcher import Batcher, ConfigError
from tests.reliability.canary_server import CONTENT, KEY
from tests.reliability.rows import Row, Size, assert_rows
from tests.reliability.security import (
    Watched,
    bombs,
    construction,
    exposure,
    injection,
    offences,
    redirects,
    rows,
    sources,
    traces,
    watch,
)


@pytest.fixture(scope="module")
def watched() -> Watched:
    return asyncio.run(watch(Size.QUICK))


def check(*checked: Row) -> None:
    assert_rows(lambda _: iter(checked), Size.QUICK)


def test_key_and_content_show_nowhere_and_reach_nobody_who_is_not_certified(watched: Watched) -> None:
    for name in ("no TLS", "other_name", "expired", "refused", "no such name"):
        assert watched.outcomes[name]["delivered"] == 0
    assert [line[:500] for line in traces(watched.shown, KEY, CONTENT)] == []
    check(*exposure(watched))


def test_the_sources_hold_nothing_that_runs_or_loads_what_they_are_given(watched: Watched) -> None:
    check(sources(watched))


def test_a_redirect_is_not_followed_to_anywhere() -> None:
    check(asyncio.run(redirects()))


def test_a_huge_answer_costs_next_to_nothing_however_it_is_packed() -> None:
    check(asyncio.run(bombs()))


def test_settings_that_could_harm_are_refused_and_careless_ones_warned_of() -> None:
    check(*construction())


def test_no_line_break_comes_into_a_header() -> None:
    check(asyncio.run(injection()))


@pytest.mark.soak
def test_the_bar_holds_for_every_status() -> None:
    assert_rows(rows, Size.FULL)


# The instruments find what they look for.


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY.upper(),
        f"Bearer {KEY}",
        repr(KEY.encode()),
        KEY[:14] + "...",
        KEY.encode().hex(),
        *(base64.b64encode(f"{'x' * shift}{KEY} {CONTENT}".encode()).decode() for shift in range(6)),
    ],
)
def test_a_trace_of_the_key_is_found_in_every_form(text: str) -> None:
    assert traces(f"one\ntwo {text} three\nfour", KEY) == [f"two {text} three"]
    assert traces("one\ntwo\nhh_****", KEY) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle.sub as p",
        "from pickle import loads",
        "from os import system",
        "import os\nos.system('x')",
        "def f():\n    return [eval(x) for x in y]",
        "__import__(name)",
    ],
)
def test_an_offence_is_found_wherever_it_stands(source: str) -> None:
    assert len(offences(source, {"pickle"})) == 1
    assert offences("import json\nfrom os import environ\nre.compile(x)\nos.urandom(3)", {"pickle"}) == []


def test_a_batcher_that_was_never_made_can_be_shown() -> None:
    """As error reporters do, with all variables of the traceback."""
    with pytest.raises(ConfigError) as caught:
        Batcher(api_key=KEY, base_url="ftp://h")
    frames = [entry.frame for entry in caught.traceback]
    assert "<Batcher not made>" in [repr(frame.f_locals.get("self")) for frame in frames]
