"""A request's body, in one piece and in slices."""

from hypothesis import given
from hypothesis import strategies as st

from honeyhive_batcher.core.request import Request

PIECE = st.binary(max_size=40)


def request(opening: bytes, parts: list[bytes], ending: bytes) -> Request:
    return Request(
        method="POST", path="/p", opening=opening, parts=tuple(parts), ending=ending, max_reply_bytes=1
    )


@given(PIECE, st.lists(PIECE, min_size=1, max_size=8), PIECE, st.integers(1, 100))
def test_the_slices_are_the_body(opening: bytes, parts: list[bytes], ending: bytes, most: int) -> None:
    made = request(opening, parts, ending)
    body = opening + b",".join(parts) + ending
    assert made.body == body
    assert made.size == len(body)
    slices = list(made.slices(most))
    assert b"".join(slices) == body
    assert all(0 < len(each) <= most for each in slices)


def test_slices_are_as_few_as_whole_parts_allow() -> None:
    made = request(b"[", [b"a" * 10] * 7, b"]")
    assert [len(each) for each in made.slices(34)] == [34, 33, 11]
    assert [bytes(each) for each in made.slices(len(made.body))] == [made.body]


def test_what_just_fits_is_whole() -> None:
    slices = list(request(b"", [b"a" * 10, b"b" * 9], b"").slices(10))
    assert slices == [b"a" * 10, b"," + b"b" * 9]
    assert all(type(each) is bytes for each in slices)


def test_what_is_longer_than_a_slice_is_cut_and_not_copied() -> None:
    long = b"a" * 25
    slices = list(request(long, [b"b", long, b"c"], long).slices(10))
    cut = [b"a" * 10, b"a" * 10, b"a" * 5]
    assert [bytes(each) for each in slices] == [*cut, b"b,", *cut, b",c", *cut]
    assert [each.obj is long for each in slices if isinstance(each, memoryview)] == [True] * 9


def test_it_shows_no_content_and_is_compressed_unless_told_otherwise() -> None:
    made = request(b"[", [b"secret"], b"]")
    assert repr(made) == "<Request POST /p: 8 bytes>"
    assert not made.plain
    assert request(b"", [b"a"], b"").size == 1
