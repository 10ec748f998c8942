"""What JSON has no word for is replaced where it stands."""

import collections
import dataclasses
import json
import math
import tracemalloc
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyhive_batcher.core.cycle import MAX_VISITS
from honeyhive_batcher.core.repair import MAX_DEPTH, encode_anyway, mend, repair

MiB = 1024 * 1024


def repaired(value: object, max_bytes: int = 4 * MiB) -> tuple[Any, int]:
    data, repairs = repair(value, max_bytes)
    assert data is not None
    assert len(data) <= max_bytes
    return json.loads(data), repairs


class Note(msgspec.Struct, rename="camel"):
    first_word: Any
    second_word: Any = msgspec.UNSET


@dataclasses.dataclass
class Point:
    x: Any


@attrs.define
class Size:
    width: Any


@pytest.mark.parametrize(
    ("value", "expected", "repairs"),
    [
        ([math.nan, 1], [None, 1], 1),
        (
            {"a": Decimal("NaN"), "b": Decimal("-Infinity"), "c": Decimal("1.5")},
            {"a": None, "b": None, "c": 1.5},
            2,
        ),
        ({"a": [Decimal("sNaN"), object()]}, {"a": [None, "<not JSON: object>"]}, 2),
        (["\ud800", "a\udfffb", "é"], ["\ufffd", "a\ufffdb", "é"], 2),
        ("\ud83d\ude00", "😀", 1),
        ({1j}, ["<not JSON: complex>"], 1),
        ((1j, frozenset({1j})), ["<not JSON: complex>", ["<not JSON: complex>"]], 2),
        (Note(1j), {"firstWord": "<not JSON: complex>"}, 1),
        (Note(1, [1j]), {"firstWord": 1, "secondWord": ["<not JSON: complex>"]}, 1),
        (Point(1j), {"x": "<not JSON: complex>"}, 1),
        (Size(1j), {"width": "<not JSON: complex>"}, 1),
        (collections.deque([1j]), ["<not JSON: complex>"], 1),
        (collections.UserDict(a=1j), {"a": "<not JSON: complex>"}, 1),
        ([True, None, 2**80, -1], [True, None, 2**80, -1], 0),
    ],
)
def test_everything_odd_is_replaced_and_counted(value: object, expected: object, repairs: int) -> None:
    assert repaired(value) == (expected, repairs)


class Silent:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Word(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("key", "name", "repairs"),
    [
        ("a", "a", 0),
        ("é", "é", 0),
        ("\ud800", "\ufffd", 1),
        (Word("w"), "w", 0),
        (1, "1", 0),
        (1.5, "1.5", 0),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001", 0),
        (None, "None", 1),
        ((1, 2), "(1, 2)", 1),
        (Silent(), "<not JSON: Silent>", 1),
        (frozenset("x" * 300), "frozenset({'x'})", 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_key_becomes_a_string(key: object, name: str, repairs: int) -> None:
    assert repaired({key: {"a": 1}, "odd": 1j}) == (
        {name: {"a": 1}, "odd": "<not JSON: complex>"},
        repairs + 1,
    )


def test_every_odd_key_is_counted() -> None:
    assert repaired({(1, 2): 1, (3, 4): 2}) == ({"(1, 2)": 1, "(3, 4)": 2}, 2)


def test_a_decimal_that_is_not_finite_is_replaced_also_deep_in_what_is_kept() -> None:
    assert repaired({"odd": {(1, 2): 1}, "kept": [Decimal("NaN")]}) == (
        {"odd": {"(1, 2)": 1}, "kept": [None]},
        2,
    )


def test_a_long_odd_key_is_cut() -> None:
    ((key, _),) = repaired({("x" * 1000,): 1})[0].items()
    assert len(key) == 200


def nest(levels: int, leaf: object) -> Any:
    value = leaf
    for _ in range(levels):
        value = [value]
    return value


def depth_of(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        (value,) = value
        depth += 1
    return depth


@pytest.mark.parametrize(
    ("levels", "repairs"), [(MAX_DEPTH - 1, 1), (MAX_DEPTH, 1), (MAX_DEPTH + 1, 1), (5000, 1)]
)
def test_what_is_nested_too_deep_becomes_a_marker(levels: int, repairs: int) -> None:
    value, count = repaired(nest(levels, 1j))
    assert count == repairs
    assert depth_of(value) == min(levels, MAX_DEPTH + 1)
    assert ("<too deep: list>" in json.dumps(value)) is (levels > MAX_DEPTH + 1)


def test_depth_costs_nothing_where_nothing_is_odd() -> None:
    deep = nest(MAX_DEPTH + 100, 1)
    assert repaired({"deep": deep, "odd": 1j}) == ({"deep": deep, "odd": "<not JSON: complex>"}, 1)


@pytest.mark.parametrize("leaf", [None, True, 7, "x"])
def test_a_leaf_of_the_deepest_level_is_kept(leaf: object) -> None:
    value: Any = nest(MAX_DEPTH + 1, 1j)
    deepest = value
    while isinstance(deepest[0], list):
        deepest = deepest[0]
    deepest.append(leaf)
    decoded, _ = repaired(value)
    for _ in range(MAX_DEPTH):
        (decoded,) = decoded
    assert decoded == ["<too deep: complex>", leaf]


class Bottomless(dict[str, object]):
    """Raises what comes of a stack that is nearly full, at a place that is known."""

    def items(self) -> Any:
        raise RecursionError


def test_what_the_stack_has_no_room_for_is_too_deep() -> None:
    value = {"a": Bottomless(b=1j), "c": 1}
    assert repaired(value) == ({"a": "<too deep: Bottomless>", "c": 1}, 1)


def test_a_stack_that_is_nearly_full_gives_a_marker_and_no_exception() -> None:
    def with_little_stack(frames: int) -> tuple[Any, int]:
        return with_little_stack(frames - 1) if frames else repaired(nest(MAX_DEPTH, 1j))

    value, repairs = with_little_stack(700)
    assert repairs >= 1
    # From CPython 3.12 on the encoder has a stack of its own, and what is short is that of the walk.
    assert any(marker in json.dumps(value) for marker in ("<too deep: ", "<not JSON: "))


def test_so_many_values_are_looked_at_and_no_more() -> None:
    value, repairs = repaired([1j] * (MAX_VISITS + 10))
    assert len(value) == MAX_VISITS + 10
    assert repairs == MAX_VISITS + 10
    assert value[0] == value[MAX_VISITS - 2] == "<not JSON: complex>"
    assert value[MAX_VISITS - 1] == "<too many values: complex>"


def test_parts_that_are_shared_without_end_are_not_walked_without_end() -> None:
    part: Any = [1j]
    for _ in range(60):
        part = [part, part]
    data, repairs = repair({"value": part}, MiB)
    assert repairs > 0
    assert data is None or len(data) <= MiB


def test_a_cycle_is_marked_where_it_closes() -> None:
    cycle: dict[str, Any] = {"a": 1}
    cycle["b"] = [cycle]
    assert repaired(cycle) == ({"a": 1, "b": ["<cycle: dict>"]}, 1)


def test_a_large_cycle_inside_is_marked_where_it_closes() -> None:
    """Its bytes reach the limit before the recursion does."""
    cycle: dict[str, Any] = {"text": "x" * 10_000}
    cycle["again"] = cycle
    value, repairs = repaired({"cycle": cycle}, 100_000)
    assert (value["cycle"]["again"], repairs) == ("<cycle: dict>", 1)


def test_a_cycle_in_siblings_is_marked_once_for_each() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    assert repaired([cycle, cycle]) == ([["<cycle: list>"], ["<cycle: list>"]], 2)


@pytest.mark.parametrize(
    "value",
    [
        ["x" * 1000, 1j],
        [1j, "x" * 1000],
        [["x" * 400, "x" * 600], 1j],
        {"a": "é" * 1000, "b": 1j},
        [1j, *["x"] * 400],
        {"x" * 1000: 1j},
    ],
)
def test_the_limit_holds_for_what_is_repaired(value: object) -> None:
    full = len(json.dumps(repaired(value)[0], ensure_ascii=False, separators=(",", ":")).encode())
    assert repair(value, full - 1)[0] is None
    for limit in (full, full + 1):
        data, _ = repair(value, limit)
        assert data is not None
        assert len(data) == full


@pytest.mark.parametrize("value", ["x" * 101, ["x" * 101, 1j], [1j, "é" * 101]])
def test_a_text_that_is_longer_than_the_limit_is_given_up_at_once(value: object) -> None:
    assert repair(value, 100)[0] is None


class Asked:
    """Notes that it was looked at."""

    asked = 0

    def model_dump(self) -> dict[str, int]:
        self.asked += 1
        return {}


def test_nothing_is_looked_at_behind_a_text_that_is_longer_than_the_limit() -> None:
    asked = Asked()
    assert repair([1j, "x" * 100, asked], 200)[0] is not None
    assert asked.asked == 1
    assert repair([1j, "x" * 201, asked], 200)[0] is None
    assert asked.asked == 1


def test_a_number_that_is_longer_than_the_limit_makes_the_whole_too_large() -> None:
    assert repair([1j, Decimal("1" * 1000)], 500)[0] is None


def test_what_is_too_large_is_given_up_before_it_is_held() -> None:
    value = [1j, *[["x" * 100_000] for _ in range(200)]]
    tracemalloc.start()
    data, _ = repair(value, MiB)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data is None
    assert peak < 8 * MiB


def test_a_type_with_a_strange_name_is_named_in_ascii() -> None:
    strange = type("Größe", (), {})
    assert repaired([strange()]) == (["<not JSON: Gr??e>"], 1)


# What the server refused.


@pytest.mark.parametrize(
    ("data", "mended"),
    [
        (b'{"a":NaN}', b'{"a":null}'),
        (b'{"a":-NaN,"b":sNaN123}', b'{"a":null,"b":null}'),
        (b'[Infinity,-Infinity,"NaN","a\\"NaN"]', b'[null,null,"NaN","a\\"NaN"]'),
        ('{"NaN":"é\\\\",\n"x":NaN}'.encode(), '{"NaN":"é\\\\",\n"x":null}'.encode()),
    ],
)
def test_a_bare_number_that_is_not_finite_is_mended(data: bytes, mended: bytes) -> None:
    def not_json(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    assert mend(data) == mended
    json.loads(mended, parse_constant=not_json)


@pytest.mark.parametrize("data", [b"{}", b'{"a":"NaN"}', b"[1e400]", b"[" + b"1" * 400 + b"]"])
def test_what_is_json_is_left_as_it_is(data: bytes) -> None:
    assert mend(data) is None


def test_what_is_nested_too_deep_to_be_looked_at_is_left_as_it_is() -> None:
    """The stack may be deeper where a reply is read than it was where the event was pushed."""
    assert mend(b"[" * 100_000 + b"NaN" + b"]" * 100_000) is None


@given(
    st.recursive(
        st.none()
        | st.integers()
        | st.text()
        | st.sampled_from(["NaN", "-Infinity", '"NaN\\', "sNaN1"])
        | st.just(...),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=15,
    )
)
def test_only_bare_numbers_are_mended(shape: Any) -> None:
    def with_leaves(node: Any, leaf: Callable[[], object]) -> Any:
        if isinstance(node, dict):
            return {name: with_leaves(item, leaf) for name, item in node.items()}
        if isinstance(node, list):
            return [with_leaves(item, leaf) for item in node]
        return leaf() if node is ... else node

    broken = json.dumps(with_leaves(shape, lambda: math.nan)).encode()
    expected = with_leaves(shape, type(None))
    assert json.loads(mend(broken) or broken) == expected


@pytest.mark.parametrize("number", [10**5000, -(10**5000)], ids=["much", "little"])
def test_an_integer_that_python_does_not_write_out_costs_itself_only(number: int) -> None:
    data, repairs = repair({"a": number, "b": [number, 2**2047], "c": 2**70}, 10_000)
    assert data is not None
    mark = "<too many digits: int>"
    assert json.loads(data) == {"a": mark, "b": [mark, 2**2047], "c": 2**70}
    assert repairs == 2


@pytest.mark.parametrize(("bits", "is_kept"), [(2047, True), (2048, True), (2049, False)])
def test_an_integer_of_so_many_bits_is_kept_beside_something_odd(bits: int, is_kept: bool) -> None:
    number = 2 ** (bits - 1)
    value, repairs = repaired({"a": number, "b": 1j})
    assert value["a"] == (number if is_kept else "<too many digits: int>")
    assert repairs == 2 - is_kept


@pytest.mark.parametrize("value", [{"a": [1, None, "é"]}, {"a": 1j, "b": {(1, 2): 2}}, {"a": "x" * 2000}])
def test_what_the_encoder_takes_is_not_walked_and_all_else_is_repaired(value: object) -> None:
    kept = encode_anyway(value, 1000)
    assert kept == repair(value, 1000)
    assert (kept[0] is None) is ("xxx" in str(value))
    assert kept[1] == (2 if "1j" in str(value) else 0)


def test_nothing_is_walked_that_the_encoder_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("honeyhive_batcher.core.repair.repair", None)
    assert encode_anyway({"a": 1}, 7) == (bytearray(b'{"a":1}'), 0)
    assert encode_anyway({"a": 1}, 6) == (None, 0)


class Proxy:
    """Stands for something that is not there now, as the proxies of web frameworks do."""

    @property  # type: ignore[misc]  # what such proxies do
    def __class__(self) -> type:
        raise LookupError("outside of a request")


class Text(str):
    __slots__ = ()

    def isascii(self) -> bool:
        raise KeyError


@pytest.mark.parametrize("make", [Proxy, lambda: Text("\ud800")], ids=["proxy", "text"])
def test_what_raises_when_it_is_looked_at_costs_itself_only(make: Callable[[], object]) -> None:
    value = make()
    data, repairs = repair({"a": value, "b": [1, value], "c": 2}, 10_000)
    assert data is not None
    decoded = json.loads(data)
    assert decoded["c"] == 2
    assert decoded["b"][0] == 1
    assert decoded["a"] == f"<not JSON: {type(value).__name__}>"
    assert repairs == 2


def test_mending_takes_time_and_space_that_go_with_the_size() -> None:
    """A pattern that goes back for every character took half a gigabyte for four megabytes of text."""
    data = b'{"a":"' + b"x" * 4_000_000 + b'","b":NaN}'
    tracemalloc.start()
    try:
        assert mend(data) == data.replace(b"NaN", b"null")
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
