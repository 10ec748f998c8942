"""Room for a price counts from the beginning, and what takes it moves nothing."""

import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyhive_batcher import ModelEvent
from honeyhive_batcher.core.encoding import EventEncoder, Refusal
from honeyhive_batcher.core.fragment import SESSIONLESS, Closing, Fragment
from honeyhive_batcher.core.repair import repair
from honeyhive_batcher.core.room import ROOM, RoomyEncoder, filled, has_room
from tests.fakes import NEW_ID, FixedIds

FREE = " \t" * (ROOM // 2)
EVENTS: list[Any] = [
    {"model": "m"},
    {"model": "m", "event_id": "its own"},
    {"event_id": 'quo"ted', "model": "m"},
    {"model": "m" * 500, "event_id": "far from the beginning"},
    {"model": FREE, "source": "given"},
    {"messages": [FREE], "event_id": FREE},
    ModelEvent(model="é"),
    ModelEvent(model="m", event_id="its own"),
    {"model": float("nan")},
]


def encoder() -> EventEncoder:
    return EventEncoder(max_event_bytes=5000, defaults={"source": "here"}, ids=FixedIds(), repair=repair)


def pair(event: Any) -> tuple[Fragment, Fragment]:
    plain, roomy = encoder().encode(event), RoomyEncoder(encoder()).encode(event)
    assert isinstance(plain, Fragment)
    assert isinstance(roomy, Fragment)
    return plain, roomy


@pytest.mark.parametrize("event", EVENTS, ids=range(len(EVENTS)))
@pytest.mark.parametrize("cost", [0.0, 0.25, 1e-07, -sys.float_info.min, sys.float_info.max])
def test_a_cost_takes_the_room_and_nothing_else_changes(event: Any, cost: float) -> None:
    plain, roomy = pair(event)
    before = msgspec.json.decode(plain.data)
    assert len(roomy.data) == len(plain.data) + ROOM
    assert msgspec.json.decode(roomy.data) == before
    assert roomy.event_id == plain.event_id == before["event_id"]
    assert roomy.repairs == plain.repairs
    assert has_room(roomy)
    size = roomy.size
    roomy.data = filled(roomy, cost)
    assert msgspec.json.decode(roomy.data) == {**before, "cost": cost}
    assert (roomy.size, roomy.event_id, has_room(roomy)) == (size, plain.event_id, False)


@pytest.mark.parametrize("event", [*EVENTS, {}, {"event_id": "its own"}], ids=range(len(EVENTS) + 2))
def test_none_takes_the_room_for_good(event: Any) -> None:
    plain, roomy = pair(event)
    size = roomy.size
    roomy.data = filled(roomy, None)
    assert msgspec.json.decode(roomy.data) == msgspec.json.decode(plain.data)
    assert (roomy.size, roomy.event_id, has_room(roomy)) == (size, plain.event_id, False)


def test_where_no_room_was_left_there_is_none() -> None:
    for event in EVENTS:
        assert not has_room(pair(event)[0])
    assert not has_room(Closing(b"{" + FREE.encode() + b"}", "s", SESSIONLESS, closing=b"{}"))


def test_what_is_no_event_is_refused_as_ever() -> None:
    assert isinstance(RoomyEncoder(encoder()).encode(7), Refusal)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_cost_fits(cost: float) -> None:
    _, roomy = pair({"model": "m", "event_id": NEW_ID})
    data = filled(roomy, cost)
    assert len(data) == len(roomy.data)
    assert msgspec.json.decode(data)["cost"] == cost
