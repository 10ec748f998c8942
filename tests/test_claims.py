"""Who tells of a call that several see."""

import asyncio
import contextvars
from types import FrameType
from typing import Any

import pytest

from honeyhive_batcher import claims
from honeyhive_batcher.claims import Claim, claim, claim_on, enter, is_claimed, leave, open_claim
from tests.integrations.kept import Kept

pytestmark = pytest.mark.anyio


def in_the_call(frame: FrameType) -> bool:
    return frame.f_code.co_name == "the_call"


def the_call(batcher: Kept) -> bool:
    return is_claimed(batcher)


def test_a_claim_is_for_one_batcher_and_for_as_long_as_it_lasts() -> None:
    mine, other = Kept(), Kept()
    assert not is_claimed(mine)
    with claim(mine):
        assert is_claimed(mine)
        assert not is_claimed(other)
        with claim(other):
            assert is_claimed(mine)
            assert is_claimed(other)
    assert not is_claimed(mine)


def test_a_claim_that_names_a_frame_is_for_what_is_below_it() -> None:
    batcher = Kept()
    claimed = open_claim(batcher, in_the_call)
    assert the_call(batcher)
    assert not is_claimed(batcher)
    claimed.close()
    assert not the_call(batcher)


async def test_a_claim_is_seen_in_tasks_and_closed_in_all_of_them() -> None:
    batcher = Kept()

    async def the_call() -> tuple[bool, bool]:
        before = is_claimed(batcher)
        await closed.wait()
        return before, is_claimed(batcher)

    closed = asyncio.Event()
    claimed = open_claim(batcher, in_the_call)
    task = asyncio.create_task(the_call())
    await asyncio.sleep(0)
    contextvars.Context().run(claimed.close)  # as a callback does, from a context of its own
    closed.set()
    assert await task == (True, False)


def test_closed_claims_do_not_pile_up() -> None:
    batcher = Kept()

    def claim_often() -> int:
        for _ in range(100):
            open_claim(batcher, in_the_call).close()
        open_claim(batcher, in_the_call)
        return len(claims._claims.get())

    assert contextvars.Context().run(claim_often) == 1


def test_a_claim_ends_with_its_block_also_in_tasks_that_were_begun_inside() -> None:
    batcher = Kept()
    with claim(batcher):
        inside = contextvars.copy_context()
    assert not inside.run(is_claimed, batcher)


def test_the_innermost_claim_is_found() -> None:
    batcher = Kept()
    outer, inner = Claim(batcher, is_deaf=True), Claim(batcher, is_deaf=True)
    enter(outer)
    enter(inner)
    assert claim_on(batcher) is inner
    leave(inner)
    assert claim_on(batcher) is outer
    leave(outer)
    assert claim_on(batcher) is None


def test_a_claim_that_hears_takes_everything_and_gives_nothing_back() -> None:
    opened = Claim(Kept())
    assert opened.hear({"a": 1}) is None
    assert opened.hear({"a": 2}) is None
    assert opened.heard is None


def test_a_deaf_claim_keeps_the_last_that_it_is_told_of_until_it_is_closed() -> None:
    first, second, third = ({"a": number} for number in range(3))
    opened = Claim(Kept(), is_deaf=True)
    assert opened.hear(first) is None
    assert opened.hear(second) is first
    opened.close()
    assert opened.hear(third) is third
    assert opened.heard is second


def test_what_comes_first_after_the_end_of_a_deaf_claim_was_its_call() -> None:
    late: dict[str, Any] = {"a": 1}
    opened = Claim(Kept(), is_deaf=True)
    opened.close()
    assert opened.hear(late) is None
