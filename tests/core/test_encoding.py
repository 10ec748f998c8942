"""An event becomes JSON bytes, whatever it holds. The oracle is the standard library's `json`."""

import array
import collections
import dataclasses
import datetime as dt
import enum
import json
import math
import pickle
import threading
import tracemalloc
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import attrs
import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from honeyhive_batcher.core import encoding, to_json
from honeyhive_batcher.core.cycle import MAX_VISITS, has_cycle
from honeyhive_batcher.core.encoding import EventEncoder, Refusal
from honeyhive_batcher.core.fields import is_plain
from honeyhive_batcher.core.fragment import Fragment, Repaired
from honeyhive_batcher.core.model import Admission
from honeyhive_batcher.core.repair import repair
from honeyhive_batcher.core.to_json import MAX_ARRAY_ITEMS, encode_within, nonfinite
from honeyhive_batcher.events import ModelEvent
from tests.fakes import NEW_ID, FixedIds

CORPUS = (Path(__file__).parents[1] / "data" / "model_events.jsonl").read_bytes().splitlines()
MiB = 1024 * 1024


def encoder(max_event_bytes: int = 4 * MiB, **defaults: str | None) -> EventEncoder:
    return EventEncoder(max_event_bytes=max_event_bytes, defaults=defaults, ids=FixedIds(), repair=repair)


def encode(event: object, **defaults: str | None) -> Fragment:
    encoded = encoder(4 * MiB, **defaults).encode(event)
    assert isinstance(encoded, Fragment)
    return encoded


def sent(value: object) -> Any:
    """What the server reads where the producer put `value`."""
    encoded = encode({"value": value})
    assert encoded.repairs == 0
    return json.loads(encoded.data)["value"]


def mended(value: object) -> tuple[Any, int]:
    encoded = encode({"value": value})
    return json.loads(encoded.data)["value"], encoded.repairs


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Real(float):
    pass


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Kind(enum.StrEnum):
    CHAT = "chat"


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


@attrs.define
class Size:
    width: int
    height: Any = None


class Usage(pydantic.BaseModel):
    tokens: int
    when: dt.date | None = None


class Note(msgspec.Struct):
    text: str


class Tensor:
    """Like torch's: `size` is a method, and `numel` tells how many there are."""

    def __init__(self, values: list[float]) -> None:
        self._values = values

    def size(self) -> tuple[int, ...]:
        return (len(self._values),)

    def numel(self) -> int:
        return len(self._values)

    def tolist(self) -> list[float]:
        return self._values


class Scalar:
    """Like a lazily computed number: it has `item` and nothing else."""

    def item(self) -> int:
        return 7


CONVERSIONS: list[tuple[str, object, object]] = [
    ("a time with its zone", dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC), "2024-05-06T07:08:09Z"),
    ("a time without zone", dt.datetime(2024, 5, 6, 7, 8, 9), "2024-05-06T07:08:09"),  # noqa: DTZ001
    ("a date", dt.date(2024, 5, 6), "2024-05-06"),
    ("a time of day", dt.time(7, 8, 9), "07:08:09"),
    ("a duration", dt.timedelta(seconds=90), "PT90S"),
    ("a UUID", uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ("a decimal", Decimal("1.10"), 1.10),
    ("bytes", b"\x00\xff", "AP8="),
    ("a bytearray", bytearray(b"\x00\xff"), "AP8="),
    ("a memoryview", memoryview(b"\x00\xff"), "AP8="),
    ("a set", {3}, [3]),
    ("a frozenset", frozenset({3}), [3]),
    ("a tuple", (1, "a"), [1, "a"]),
    ("an enum", Colour.RED, "red"),
    ("an integer enum", Level.HIGH, 3),
    ("a string enum", Kind.CHAT, "chat"),
    ("a dataclass", Point(1, dt.date(2024, 5, 6)), {"x": 1, "y": "2024-05-06"}),
    ("an attrs object", Size(1, b"\x00"), {"width": 1, "height": "AA=="}),
    (
        "a pydantic model",
        Usage(tokens=5, when=dt.date(2024, 5, 6)),
        {"tokens": 5, "when": "2024-05-06"},
    ),
    ("a Struct", Note("hi"), {"text": "hi"}),
    ("a model event inside", ModelEvent(model="m"), {"model": "m"}),
    ("a numpy float", np.float32(1.5), 1.5),
    ("a numpy double", np.float64(0.1), 0.1),
    ("a numpy integer", np.int64(3), 3),
    ("a numpy bool", np.bool_(True), True),
    ("a numpy string", np.str_("q"), "q"),
    ("a numpy date", np.datetime64("2024-05-06"), "2024-05-06"),
    ("a numpy array", np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    ("a numpy array of dates", np.array(["2024-05-06"], dtype="datetime64[D]"), ["2024-05-06"]),
    ("a tensor", Tensor([1.0, 2.0]), [1.0, 2.0]),
    ("a lazy number", Scalar(), 7),
    ("a str subclass", Text("x"), "x"),
    ("an int subclass", Whole(3), 3),
    ("a float subclass", Real(1.5), 1.5),
    ("a deque", collections.deque([1, 2]), [1, 2]),
    ("a range", range(3), [0, 1, 2]),
    ("a mapping proxy", types.MappingProxyType({"a": 1}), {"a": 1}),
    ("a user dict", collections.UserDict(a=1), {"a": 1}),
    ("a default dict", collections.defaultdict(int, a=1), {"a": 1}),
    ("a dict's values", {"a": 1}.values(), [1]),
    ("an integer of 100 bits", 2**100, 2**100),
    ("an unset field", UNSET, None),
    ("text with control characters", 'a\x00"\\\u2028\x7f', 'a\x00"\\\u2028\x7f'),
]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(value, expected) for _, value, expected in CONVERSIONS],
    ids=[name for name, _, _ in CONVERSIONS],
)
def test_a_value_that_json_has_a_word_for_is_converted_without_a_repair(
    value: object, expected: object
) -> None:
    assert sent(value) == expected
    assert type(sent(value)) is type(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(value, expected) for _, value, expected in CONVERSIONS],
    ids=[name for name, _, _ in CONVERSIONS],
)
def test_a_conversion_is_the_same_beside_something_that_needs_repair(value: object, expected: object) -> None:
    encoded = encode({"odd": "\ud800", "in": {"deep": [value, object()]}})
    assert json.loads(encoded.data)["in"] == {"deep": [expected, "<not JSON: object>"]}
    assert encoded.repairs == 2


def test_a_decimal_is_written_as_a_number_with_every_digit() -> None:
    data = encode({"cost": Decimal("0.10000000000000000000001")}).data
    assert b'"cost":0.10000000000000000000001,' in data


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf")])
def test_a_number_that_is_not_finite_becomes_null_and_is_counted(number: float) -> None:
    assert mended(number) == (None, 1)


def test_every_number_of_an_array_that_is_not_finite_is_counted() -> None:
    assert mended(np.array([1.0, np.nan, np.inf])) == ([1.0, None, None], 2)


def test_nulls_and_the_word_null_are_not_counted_as_repairs() -> None:
    event = {"error": None, "a": None, "b": ["null", None], "null": 1, "c": 1.5}
    assert encode(event).repairs == 0


def test_numbers_that_are_not_finite_are_counted_beside_nulls_that_were_meant() -> None:
    encoded = encode({"error": None, "a": [None, math.nan, "null"], "b": -math.inf})
    assert encoded.repairs == 2
    assert json.loads(encoded.data)["a"] == [None, None, "null"]


def test_numbers_that_are_not_finite_are_counted_beside_an_integer_of_more_than_64_bits() -> None:
    encoded = encode({"a": [None, 2**70, math.nan], "b": {"c": math.nan}})
    assert json.loads(encoded.data)["a"] == [None, 2**70, None]
    assert encoded.repairs == 2


class Failing(msgspec.Struct):
    error: str | None
    score: Any


class Scored(msgspec.Struct):
    score: Any


@pytest.mark.parametrize(
    "event", [Failing("e", math.nan), Scored(math.nan), {"error": "e", "score": math.nan}]
)
def test_a_number_that_is_not_finite_is_counted_whatever_the_error_says(event: object) -> None:
    assert encode(event).repairs == 1


@pytest.mark.parametrize("event", [Failing(None, 1), {"error": None, "score": 1}])
def test_an_event_whose_only_null_is_its_error_is_encoded_once(
    event: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_repair(value: object, max_bytes: int) -> tuple[None, int]:
        raise AssertionError

    monkeypatch.setattr(to_json, "_MSGPACK", None)
    once = EventEncoder(max_event_bytes=1000, defaults={}, ids=FixedIds(), repair=no_repair)
    assert isinstance(once.encode(event), Fragment)


@pytest.mark.parametrize("event", [Failing(None, math.nan), {"error": None, "score": [math.nan, None]}])
def test_a_number_that_is_not_finite_is_counted_without_a_walk(event: object) -> None:
    def no_repair(value: object, max_bytes: int) -> tuple[None, int]:
        raise AssertionError

    once = EventEncoder(max_event_bytes=1000, defaults={}, ids=FixedIds(), repair=no_repair)
    encoded = once.encode(event)
    assert isinstance(encoded, Fragment)
    assert encoded.repairs == 1


def test_an_array_of_the_standard_library_is_a_list() -> None:
    assert sent(array.array("d", [1.5, 2.5])) == [1.5, 2.5]


def test_an_array_of_too_many_items_is_left_out() -> None:
    at_most, too_many = np.zeros(MAX_ARRAY_ITEMS, dtype="i1"), np.zeros(MAX_ARRAY_ITEMS + 1, dtype="i1")
    assert len(sent(at_most)) == MAX_ARRAY_ITEMS
    assert mended(too_many) == ("<not JSON: ndarray>", 1)


def test_an_iterator_is_not_read() -> None:
    """Its owner still wants what it gives."""
    iterator = iter([1, 2])
    assert mended(iterator) == ("<not JSON: list_iterator>", 1)
    assert list(iterator) == [1, 2]


class Hostile:
    """Every question to it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class Mimic:
    """Has every attribute and any call returns another, like a mock."""

    def __getattr__(self, name: str) -> "Mimic":
        return self

    def __call__(self, *args: object) -> "Mimic":
        return self


class Reply(pydantic.BaseModel):
    content: str
    parent: Any = None


class Reading(pydantic.BaseModel):
    value: Any = None

    def model_dump(self, **more: Any) -> dict[str, Any]:
        raise ValueError("no")


@pytest.mark.parametrize(
    "value",
    [Hostile(), object(), 1j, len, Exception("x"), Usage, Point, Reading()],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_converted_becomes_a_marker_with_its_type(value: object) -> None:
    assert mended(value) == (f"<not JSON: {type(value).__name__}>", 1)


def test_an_object_whose_fields_raise_is_marked_where_it_stands() -> None:
    @dataclasses.dataclass(slots=True)
    class Lazy:
        good: object

        @property
        def bad(self) -> int:
            raise RuntimeError("no")

    Lazy.__dataclass_fields__ = {**Lazy.__dataclass_fields__, "bad": dataclasses.field()}
    assert mended(Lazy(object())) == ({"good": "<not JSON: object>", "bad": "<unreadable: Lazy>"}, 2)


class Shrinking(dict[str, Any]):
    """Another thread changes it while it is being read."""

    def items(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")


def test_a_dict_that_changes_while_it_is_repaired_becomes_a_marker() -> None:
    assert mended([1, Shrinking(a=object())]) == ([1, "<not JSON: Shrinking>"], 1)


def test_a_value_that_pretends_to_be_everything_ends_as_a_marker() -> None:
    value, repairs = mended(Mimic())
    assert "Mimic" in json.dumps(value)
    assert repairs == 1


def test_a_marker_never_shows_the_value() -> None:
    assert b"secret" not in encode({"value": Exception("secret")}).data


# Ids.


def test_an_event_without_id_is_given_one() -> None:
    encoded = encode({"model": "m"})
    assert encoded.event_id == NEW_ID
    assert json.loads(encoded.data) == {"model": "m", "event_id": NEW_ID}


@pytest.mark.parametrize("event_id", ["mine", 'qu"ote', "back\\slash", "é", "a b"])
def test_an_event_keeps_the_id_it_brings(event_id: str) -> None:
    encoded = encode({"event_id": event_id})
    assert (encoded.event_id, encoded.repairs) == (event_id, 0)
    assert json.loads(encoded.data) == {"event_id": event_id}


PRINTABLE = st.text(min_size=1, max_size=50).filter(str.isprintable)


@given(event_id=PRINTABLE, before=st.dictionaries(PRINTABLE, PRINTABLE, max_size=8))
def test_an_id_is_read_back_from_wherever_it_stands(event_id: str, before: dict[str, str]) -> None:
    before.pop("event_id", None)
    for event in ({**before, "event_id": event_id}, {"event_id": event_id, **before}):
        assert encode(event).event_id == event_id


def test_no_text_of_its_own_is_kept_for_an_id_near_the_beginning_nor_for_one_of_ours() -> None:
    near, far = {"model": "m", "event_id": NEW_ID}, {"text": "x" * 250, "event_id": NEW_ID}
    assert [encode(event).name for event in (near, far, {"model": "m"})] == [25, NEW_ID, -38]


def test_an_id_is_looked_for_where_its_place_is_a_number_that_costs_nothing() -> None:
    """CPython has the integers up to 256 once for all."""
    names = [encode({"x": "x" * length, "event_id": "m" * 99}).name for length in range(300)]
    places = [name for name in names if isinstance(name, int)]
    assert places == list(range(places[0], places[0] + len(places)))
    assert names[: len(places)] == places
    assert 200 <= places[-1] <= 256
    assert set(names[len(places) :]) == {"m" * 99}


@pytest.mark.parametrize("event_id", ['x":"y', "mine", "a\\nb"])
def test_an_id_is_itself_whatever_looks_like_it(event_id: str) -> None:
    event = {"x": "y", "mine": "mine", "text": "a\nb", "event_id": event_id}
    assert encode(event).event_id == event_id


@pytest.mark.parametrize("odd", [math.nan, object(), "\ud800"])
@pytest.mark.parametrize(("fields", "event_id"), [({}, NEW_ID), ({"event_id": "mine"}, "mine")])
def test_an_event_that_was_repaired_is_known_by_its_id(
    fields: dict[str, str], event_id: str, odd: object
) -> None:
    for event in ({"odd": odd, **fields}, {**fields, "text": "x" * 300, "odd": odd}):
        encoded = encode(event)
        assert (encoded.event_id, encoded.repairs) == (event_id, 1)
        assert json.loads(encoded.data)["event_id"] == event_id


def test_only_an_event_with_repairs_has_room_to_count_them() -> None:
    assert type(encode({"a": 1})) is type(encode({"event_id": "a"})) is Fragment
    assert type(encode({"a": math.nan})) is type(encode({"event_id": ""})) is Repaired


@pytest.mark.parametrize(
    ("event_id", "kept"),
    [
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (7, "7"),
        (Text("mine"), "mine"),
        (np.str_("mine"), "mine"),
        (Kind.CHAT, "chat"),
    ],
)
def test_an_id_of_another_type_is_kept_as_text(event_id: object, kept: str) -> None:
    encoded = encode({"event_id": event_id, "model": "m"})
    assert (encoded.event_id, encoded.repairs) == (kept, 0)
    assert json.loads(encoded.data) == {"event_id": kept, "model": "m"}


@pytest.mark.parametrize("event_id", [None, UNSET])
def test_a_null_id_is_as_good_as_none(event_id: object) -> None:
    encoded = encode({"event_id": event_id, "model": "m"})
    assert (encoded.event_id, encoded.repairs) == (NEW_ID, 0)
    assert json.loads(encoded.data) == {"event_id": NEW_ID, "model": "m"}
    assert encoded.data.count(b"event_id") == 1


@pytest.mark.parametrize(
    "event_id", ["", "a\nb", "\ud800", "\u2028", "\x00", True, 1.5, ["x"], Colour.RED, Text("a\nb"), object()]
)
def test_an_id_that_cannot_be_one_is_replaced_and_counted(event_id: object) -> None:
    encoded = encode({"event_id": event_id, "model": "m"})
    assert (encoded.event_id, encoded.repairs) == (NEW_ID, 1)
    assert json.loads(encoded.data) == {"event_id": NEW_ID, "model": "m"}


def test_an_odd_id_is_replaced_in_a_struct_as_well() -> None:
    event = ModelEvent(model="m", event_id=uuid.UUID(int=5))  # type: ignore[arg-type] # a producer's slip
    encoded = encode(event)
    assert encoded.event_id == "00000000-0000-0000-0000-000000000005"
    assert json.loads(encoded.data) == {"model": "m", "event_id": encoded.event_id}


def test_a_repair_elsewhere_is_counted_beside_that_of_the_id() -> None:
    assert encode({"event_id": "", "a": object()}).repairs == 2


def test_the_id_sent_is_the_id_known_also_when_a_struct_calls_it_otherwise() -> None:
    class Renamed(msgspec.Struct, rename="camel"):
        event_id: str | None = None

    for event in (Renamed(), Renamed(event_id="mine")):
        encoded = encode(event)
        assert json.loads(encoded.data)["event_id"] == encoded.event_id == NEW_ID


@pytest.mark.parametrize("event_id", [None, uuid.UUID(int=5), ""])
def test_a_refusal_is_the_same_with_an_odd_id(event_id: object) -> None:
    refusal = encoder(max_event_bytes=200).encode({"event_id": event_id, "text": "x" * 200})
    assert isinstance(refusal, Refusal)
    assert refusal.admission is Admission.TOO_LARGE


# Defaults.


@pytest.mark.parametrize(
    ("event", "project", "source"),
    [
        ({}, "p", "s"),
        ({"project": "mine"}, "mine", "s"),
        ({"source": "mine"}, "p", "mine"),
        ({"project": "mine", "source": "mine"}, "mine", "mine"),
        ({"project": None, "source": ""}, None, ""),
        (ModelEvent(), "p", "s"),
        (ModelEvent(project="mine"), "mine", "s"),
        (ModelEvent(source="mine"), "p", "mine"),
        (types.MappingProxyType({"project": "mine"}), "mine", "s"),
        (Note("hi"), "p", "s"),
    ],
)
def test_defaults_fill_only_what_is_absent(event: object, project: object, source: object) -> None:
    fields = json.loads(encode(event, project="p", source="s", event_name=None).data)
    assert (fields["project"], fields["source"]) == (project, source)
    assert "event_name" not in fields


def test_a_struct_that_says_an_id_and_a_project_keeps_them() -> None:
    class Own(msgspec.Struct):
        event_id: str | msgspec.UnsetType = msgspec.UNSET
        project: str | msgspec.UnsetType = msgspec.UNSET
        error: str | msgspec.UnsetType | None = msgspec.UNSET

    for event, event_id, project in [
        (Own(), NEW_ID, "p"),
        (Own(event_id="mine"), "mine", "p"),
        (Own(project="mine"), NEW_ID, "mine"),
        (Own(event_id="mine", project="mine", error=None), "mine", "mine"),
    ]:
        encoded = encode(event, project="p")
        fields = json.loads(encoded.data)
        assert encoded.event_id == fields["event_id"] == event_id
        assert (fields["project"], encoded.repairs) == (project, 0)


def test_an_odd_id_of_a_plain_struct_is_replaced() -> None:
    class Own(msgspec.Struct):
        event_id: Any

    encoded = encode(Own(event_id=[]))
    assert json.loads(encoded.data)["event_id"] == encoded.event_id == NEW_ID
    assert encoded.repairs == 1


def test_a_text_that_looks_like_an_empty_object_arrives_as_it_was() -> None:
    assert json.loads(encode({"text": "{,"}).data)["text"] == "{,"
    assert json.loads(encode({}, project="{,").data)["project"] == "{,"


def test_defaults_are_escaped_as_json() -> None:
    assert json.loads(encode({}, project='a"\\\né').data)["project"] == 'a"\\\né'


@pytest.mark.parametrize("event", [{}, ModelEvent(), {"event_id": "x"}, {"a": 1}])
@pytest.mark.parametrize(
    "defaults", [{}, {"project": "p"}, {"project": "p", "source": "s", "event_name": "n"}]
)
def test_no_field_is_written_twice(event: object, defaults: dict[str, str]) -> None:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    fields = json.loads(encode(event, **defaults).data, object_pairs_hook=once)
    assert fields.keys() >= {"event_id", *defaults}


# What may be an event.


@pytest.mark.parametrize(
    "event", [None, 1, "text", b"{}", [("a", 1)], object(), Point(1), Usage(tokens=1), ModelEvent]
)
def test_what_is_no_mapping_and_no_struct_is_refused_by_type_and_not_by_content(event: object) -> None:
    refusal = encoder().encode(event)
    assert isinstance(refusal, Refusal)
    assert refusal.admission is Admission.NOT_AN_EVENT
    assert type(event).__name__ in refusal.message
    assert "text" not in refusal.message


def test_a_struct_that_is_an_array_in_json_is_refused() -> None:
    class Row(msgspec.Struct, array_like=True):
        a: int = 1

    refusal = encoder().encode(Row())
    assert isinstance(refusal, Refusal)
    assert refusal.admission is Admission.NOT_AN_EVENT
    assert refusal.message.endswith("not Row")


class Headers(Mapping[str, object]):
    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> object:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def test_any_mapping_may_be_an_event() -> None:
    assert json.loads(encode(Headers({"model": "m"})).data) == {"model": "m", "event_id": NEW_ID}


# Snapshot.


def test_the_bytes_are_a_snapshot() -> None:
    event: dict[str, Any] = {"messages": [{"content": "before"}]}
    encoded = encode(event)
    event["messages"][0]["content"] = "after"
    event["more"] = 1
    assert json.loads(encoded.data) == {"messages": [{"content": "before"}], "event_id": NEW_ID}
    assert type(encoded.data) is bytes


@pytest.mark.parametrize(
    "event",
    [
        {"a": [1, {"b": None}]},
        {"event_id": None, "a": math.nan},
        {"event_id": uuid.UUID(int=1), "a": "\ud800", 5: {"b": 1j}},
        {"a": np.array([1.0, math.nan]), "b": collections.deque([1])},
    ],
)
def test_the_callers_object_is_not_changed(event: dict[Any, Any]) -> None:
    before = pickle.dumps(event)
    encode(event, project="p")
    assert pickle.dumps(event) == before


def test_the_callers_struct_is_not_changed() -> None:
    event = ModelEvent(metadata={"a": math.nan, "b": object()})
    encode(event, project="p")
    assert event.event_id is UNSET
    assert event.project is UNSET
    assert math.isnan(event.metadata["a"])  # type: ignore[index]


# Sizes.


@pytest.mark.parametrize(
    "event",
    [
        {"text": "x" * 100},
        {"event_id": "mine", "text": "x" * 100},
        {"event_id": None, "text": "x" * 100},
        {"text": 'é\n"\x00' * 20},
        {"text": "x" * 5000},
        {"text": "x" * 100_000},
        {"odd": object(), "text": "x" * 100},
        {"odd": math.nan, "text": "x" * 100},
        ModelEvent(model="m" * 100),
        ModelEvent(model="m" * 100, source="s"),
    ],
)
@pytest.mark.parametrize("defaults", [{}, {"project": "p", "source": "s"}])
def test_an_event_of_just_the_largest_size_is_taken_and_one_byte_more_is_not(
    event: object, defaults: dict[str, str]
) -> None:
    size = len(encode(event, **defaults).data)
    for limit, fits in ((size - 1, False), (size, True), (size + 1, True)):
        encoded = encoder(limit, **defaults).encode(event)
        assert isinstance(encoded, Fragment) is fits, limit
        if isinstance(encoded, Refusal):
            assert encoded.admission is Admission.TOO_LARGE
            assert str(limit) in encoded.message


def test_defaults_that_are_longer_than_an_event_may_be_leave_no_room_for_any() -> None:
    refusal = encoder(10, project="p" * 500).encode({"a": object()})
    assert isinstance(refusal, Refusal)
    assert refusal.admission is Admission.TOO_LARGE


def test_a_large_event_does_not_make_the_next_small_one_hold_much() -> None:
    """The guess at the size follows what events really take, up and down."""
    shared = encoder()
    for event in ({"a": 1}, {"a": "x" * MiB}, {"a": 1}, {"a": 1}):
        assert isinstance(shared.encode(event), Fragment)
    tracemalloc.start()
    shared.encode({"a": 1})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024


class Rooms:
    """An encoder that notes how much room it was given."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self._encoder = msgspec.json.Encoder()

    def encode_into(self, value: object, buffer: bytearray) -> None:
        self.given.append(len(buffer))
        self._encoder.encode_into(value, buffer)


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> Rooms:
    rooms = Rooms()
    for module in (encoding, to_json):
        monkeypatch.setattr(module, "encode_into", rooms.encode_into)
    return rooms


def of_size(size: int) -> dict[str, str]:
    """An event of so many bytes without its id."""
    return {"x": "x" * (size - len('{"x":""}'))}


def test_an_event_is_tried_in_more_and_more_room_up_to_its_limit(rooms: Rooms) -> None:
    data = encode_within(of_size(100_000), MiB)
    assert data is not None
    assert len(data) == 100_000
    assert rooms.given == [4096, 32_768, 262_144]
    rooms.given.clear()
    assert encode_within(of_size(100_000), 50_000) is None
    assert rooms.given == [4096, 32_768, 50_064]


@pytest.mark.parametrize(
    ("sizes", "room"),
    [
        ((10,), 4096),
        ((4000,), 4096),
        ((10_000,), 20_000),
        ((10_000, 2499), 4998),
        ((10_000, 2500), 20_000),
        ((10_000, 19_900), 20_000),
        ((10_000, 20_001), 40_002),
        ((10_000, 2000), 4096),
        ((10_000, 10_000, 4), 4096),
    ],
)
def test_the_room_for_an_event_goes_by_what_those_before_it_took(
    rooms: Rooms, sizes: tuple[int, ...], room: int
) -> None:
    shared = encoder()
    for size in sizes:
        assert isinstance(shared.encode(of_size(size)), Fragment)
    rooms.given.clear()
    assert isinstance(shared.encode(of_size(10)), Fragment)
    assert rooms.given == [room]


@pytest.mark.parametrize(
    ("size", "given"),
    [
        (4000, [4096]),
        (10_000, [4096, 32_768]),
        (49_950, [4096, 32_768, 50_014]),
        (49_951, [4096, 32_768, 50_014]),
        (10 * MiB, [4096, 32_768, 50_014]),
    ],
)
def test_an_event_longer_than_those_before_it_is_tried_in_more_room_up_to_the_limit(
    rooms: Rooms, size: int, given: list[int]
) -> None:
    """An id takes 50 bytes of the limit, and the encoder wants 64 more than it fills."""
    encoded = encoder(50_000).encode(of_size(size))
    assert isinstance(encoded, Fragment) is (size <= 49_950)
    assert rooms.given == given


@pytest.mark.parametrize(("limit", "size", "room"), [(30_000, 20_000, 30_064), (1000, 10, 1064)])
def test_the_room_for_an_event_is_never_more_than_the_largest_takes(
    rooms: Rooms, limit: int, size: int, room: int
) -> None:
    shared = encoder(limit)
    assert isinstance(shared.encode(of_size(size)), Fragment)
    rooms.given.clear()
    assert isinstance(shared.encode(of_size(10)), Fragment)
    assert rooms.given == [room]


@pytest.mark.parametrize("size", [200, 10_000])
@pytest.mark.parametrize("event_id", [{}, {"event_id": "mine"}])
def test_an_event_that_is_too_large_is_refused_without_a_repair(size: int, event_id: dict[str, str]) -> None:
    def no_repair(value: object, max_bytes: int) -> tuple[None, int]:
        raise AssertionError

    once = EventEncoder(max_event_bytes=100, defaults={}, ids=FixedIds(), repair=no_repair)
    refusal = once.encode({**of_size(size), **event_id})
    assert isinstance(refusal, Refusal)
    assert refusal.admission is Admission.TOO_LARGE


json_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["", "\x00" * 50, '"\\\n' * 30, "é" * 40, "😀" * 30, "x" * 5000])
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
        max_leaves=20,
    )


@given(
    nested(
        json_leaves
        | st.binary()
        | st.datetimes()
        | st.uuids()
        | st.decimals(allow_nan=False, allow_infinity=False)
    )
)
def test_the_limit_is_exact_for_every_value(value: object) -> None:
    """The encoder wants more room than it fills; none of that may show."""
    size = len(msgspec.json.Encoder(decimal_format="number").encode(value))
    fitting = encode_within(value, size)
    assert fitting is not None
    assert len(fitting) == size
    assert encode_within(value, size - 1) is None
    assert encode_within(value, size, guess=1) == fitting


@given(st.dictionaries(st.text().filter(lambda name: name != "event_id"), nested(json_leaves), max_size=6))
def test_every_json_object_arrives_as_it_was(event: dict[str, Any]) -> None:
    encoded = encode(event)
    assert json.loads(encoded.data) == {**event, "event_id": NEW_ID}
    assert encoded.repairs == 0


ODD: list[tuple[Callable[[], object], object]] = [
    (lambda: math.nan, None),
    (lambda: -math.inf, None),
    (lambda: np.float64("nan"), None),
    (lambda: "a\ud800b", "a\ufffdb"),
    (lambda: "\udfff😀", "\ufffd😀"),
    (lambda: 1j, "<not JSON: complex>"),
    (object, "<not JSON: object>"),
    (Hostile, "<not JSON: Hostile>"),
    (lambda: iter([1]), "<not JSON: list_iterator>"),
]


@given(nested(json_leaves.map(lambda value: (value,)) | st.sampled_from(ODD)))
def test_odd_values_are_repaired_where_they_stand_and_all_else_arrives(shape: Any) -> None:
    """In `shape` a leaf is a tuple: a clean value alone, or an odd one with what is to become of it."""
    odd = 0

    def given_and_expected(node: Any) -> tuple[Any, Any]:
        nonlocal odd
        if isinstance(node, dict):
            parts = {name: given_and_expected(item) for name, item in node.items()}
            return {k: v[0] for k, v in parts.items()}, {k: v[1] for k, v in parts.items()}
        if isinstance(node, list):
            items = [given_and_expected(item) for item in node]
            return [item[0] for item in items], [item[1] for item in items]
        if len(node) == 1:
            return node[0], node[0]
        odd += 1
        return node[0](), node[1]

    value, expected = given_and_expected(shape)
    encoded = encode({"value": value})
    assert json.loads(encoded.data)["value"] == expected
    assert encoded.repairs == odd


# The corpus.


@pytest.mark.parametrize("line", CORPUS, ids=[f"line {number}" for number in range(1, len(CORPUS) + 1)])
def test_every_event_of_the_corpus_arrives_key_for_key(line: bytes) -> None:
    event = json.loads(line)
    encoded = encode(event)
    arrived = json.loads(encoded.data)
    assert arrived == {"event_id": encoded.event_id, **event}
    assert list(arrived) == [*event, *(() if "event_id" in event else ("event_id",))]
    assert encoded.repairs == 0
    assert len(encoded.data) == len(
        json.dumps(arrived, ensure_ascii=False, separators=(",", ":")).encode()
    ) or (
        b"e" in encoded.data  # the two write large floats differently
    )


# Cycles.


def cycle_of_dicts(content: str) -> object:
    inner: dict[str, Any] = {"content": content}
    inner["self"] = [inner]
    return {"value": inner}


def cycle_of_structs(content: str) -> object:
    event = ModelEvent(model=content, metadata={})
    event.metadata = {"event": event}
    return event


def cycle_of_dataclasses(content: str) -> object:
    point = Point(1, content)
    point.y = [content, point]
    return {"value": point}


def cycle_of_attrs(content: str) -> object:
    size = Size(1)
    size.height = (content, size)
    return {"value": size}


def cycle_of_pydantic(content: str) -> object:
    reading = Reply(content=content)
    reading.parent = [reading]
    return {"value": reading}


CYCLES = [cycle_of_dicts, cycle_of_structs, cycle_of_dataclasses, cycle_of_attrs, cycle_of_pydantic]


@pytest.mark.parametrize("cycle", CYCLES)
@pytest.mark.parametrize("length", [1, 10_000, 400_000])
def test_a_cycle_becomes_a_marker_whatever_it_holds_and_costs_little(
    cycle: Callable[[str], object], length: int
) -> None:
    event = cycle("x" * length)
    shared = encoder(MiB)
    tracemalloc.start()
    encoded = shared.encode(event)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(encoded, Fragment)
    assert json.loads(encoded.data)
    assert b"<cycle: " in encoded.data or b"<not JSON: Reply>" in encoded.data
    assert encoded.repairs == 1
    assert peak < 16 * MiB


def test_a_part_that_is_shared_is_no_cycle() -> None:
    part = {"a": [1]}
    assert sent([part, part, {"again": part}]) == [part, part, {"again": part}]
    assert not has_cycle([part, part, {"again": part}])


def test_a_cycle_is_found_behind_what_holds_none() -> None:
    for container in ([[1], {"a": 2}], [Point(1)], [(), ((),)], [[None]]):
        value: list[Any] = [*container]
        assert not has_cycle(value)
        value.append(value)
        assert has_cycle(value)


def test_a_cycle_is_found_beside_a_field_that_is_not_set() -> None:
    @dataclasses.dataclass
    class Half:
        first: int = dataclasses.field(init=False)
        second: Any

    half = Half([])
    half.second.append(half)
    assert has_cycle(half)


def test_an_object_whose_fields_cannot_be_read_is_no_cycle() -> None:
    class Unreadable(Point):
        @property
        def z(self) -> int:
            raise RuntimeError("no")

    Unreadable.__dataclass_fields__ = {"z": dataclasses.field()}
    assert not has_cycle([Unreadable(1), Point])


def test_the_search_for_a_cycle_is_given_up_after_so_many_values() -> None:
    late: list[Any] = [0] * MAX_VISITS
    late.append(late)
    assert not has_cycle(late)
    soon: list[Any] = [0] * (MAX_VISITS - 1)
    soon.append(soon)
    assert has_cycle(soon)


def test_an_event_too_large_with_parts_shared_without_end_is_refused_in_time() -> None:
    part: list[Any] = ["x" * 100]
    for _ in range(60):
        part = [part, part]  # 2**60 values, and no cycle
    refusal = encoder(MiB).encode({"value": part})
    assert isinstance(refusal, Refusal)
    assert refusal.admission is Admission.TOO_LARGE


def test_nothing_is_counted_as_not_finite_where_no_null_was_written() -> None:
    assert nonfinite(math.nan, bytearray(b"1"), 0) == 0


def test_one_encoder_serves_many_threads() -> None:
    shared = encoder()
    wrong: list[object] = []

    def produce(thread: int) -> None:
        for count in range(500):
            event = {"text": "x" * (count * 37 % 9000), "thread": thread}
            encoded = shared.encode(event)
            if not isinstance(encoded, Fragment) or json.loads(encoded.data) != {**event, "event_id": NEW_ID}:
                wrong.append(encoded)

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class Renamed(msgspec.Struct, rename={"name": "event_id"}):
    name: str
    model: str = "m"


class Sparse(msgspec.Struct, omit_defaults=True, tag_field="kind", tag="sparse"):
    event_id: str = "usual"
    model: str = "m"


@pytest.mark.parametrize(
    ("event", "event_id", "sent"),
    [
        (Renamed("a"), "a", {"event_id": "a", "model": "m"}),
        (Sparse(), "usual", {"kind": "sparse", "event_id": "usual", "model": "m"}),
        (Sparse(event_id="b"), "b", {"kind": "sparse", "event_id": "b", "model": "m"}),
    ],
    ids=repr,
)
def test_the_id_that_is_sent_is_the_one_it_is_known_by(
    event: msgspec.Struct, event_id: str, sent: object
) -> None:
    encoded = encoder().encode(event)
    assert isinstance(encoded, Fragment)
    assert encoded.event_id == event_id
    assert json.loads(encoded.data) == sent


class PropertyBeside(msgspec.Struct):
    """Says more than its fields do, and none of that is in its JSON."""

    model: str

    @property
    def event_id(self) -> str:
        return "beside"


class VariableBeside(msgspec.Struct):
    model: str
    project: ClassVar[str] = "beside"


class ErrorBeside(msgspec.Struct):
    model: float
    error: ClassVar[None] = None


class AnythingBeside(msgspec.Struct):
    model: str

    def __getattr__(self, name: str) -> str:
        return "beside"


class Numbered(msgspec.Struct):
    model: str

    @property
    def event_id(self) -> int:
        return 7


def test_an_odd_id_that_is_no_field_is_no_reason_to_fail() -> None:
    encoded = encode(Numbered("m"))
    assert json.loads(encoded.data) == {"model": "m", "event_id": encoded.event_id}


@pytest.mark.parametrize("kind", [PropertyBeside, VariableBeside, AnythingBeside])
def test_what_a_struct_says_beside_its_fields_is_no_part_of_its_event(kind: Any) -> None:
    encoded = encode(kind("m"), project="p")
    assert json.loads(encoded.data) == {"model": "m", "event_id": encoded.event_id, "project": "p"}


def test_a_none_beside_the_fields_explains_no_null_among_them() -> None:
    assert encode(ErrorBeside(float("nan"))).repairs == 1


def test_fields_by_those_names_keep_a_struct_on_the_fast_way() -> None:
    kind = msgspec.defstruct("Event", [("model", str), ("project", str, "p")])
    assert is_plain(kind, ("event_id", "error", "project"))


LOOKED_FOR = ("event_id", "error", "project")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("model", str), ("project", str)], True),
        ([("model", str), ("project", Any, UNSET), ("error", Any, UNSET), ("event_id", Any, UNSET)], True),
        ([("model", str, "m"), ("project", Any, UNSET)], True),  # nobody looks for the model
        ([("model", str, "m"), ("project", str)], True),  # in keywords, what has no default may follow
        ([("model", str), ("project", str, "p")], False),
        ([("model", str), ("error", Any, None)], False),
        ([("event_id", str, "e"), ("model", str, "m")], False),
        ([("model", str), ("project", Any, msgspec.field(default_factory=dict))], False),
    ],
)
def test_a_struct_that_omits_defaults_is_plain_if_what_is_looked_for_has_none(
    fields: Any, *, expected: bool
) -> None:
    kind = msgspec.defstruct("Event", fields, omit_defaults=True, kw_only=True)
    assert is_plain(kind, LOOKED_FOR) is expected


def test_what_a_struct_omits_is_filled_in_from_the_settings_and_a_lost_number_is_counted() -> None:
    kind = msgspec.defstruct(
        "Event", [("cost", float), ("project", str, "p"), ("error", Any, None)], omit_defaults=True
    )
    encoded = encode(kind(float("nan")), project="q")
    assert json.loads(encoded.data) == {"cost": None, "project": "p", "error": None, "event_id": NEW_ID}
    assert encoded.repairs == 1


def test_a_model_event_is_on_the_fast_way() -> None:
    assert is_plain(ModelEvent, (*LOOKED_FOR, "source", "event_name"))
    encoded = encode(ModelEvent(model="m", cost=float("nan"), error=None), project="p")
    assert json.loads(encoded.data) == {
        "model": "m",
        "cost": None,
        "error": None,
        "event_id": NEW_ID,
        "project": "p",
    }
    assert encoded.repairs == 1
