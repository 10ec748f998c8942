"""Lines, events, where they come from, and where rejected ones go."""

import asyncio
import os
import select
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyhive_batcher.cli.send.event import LineError, read_event
from honeyhive_batcher.cli.send.lines import Line, LineSplitter
from honeyhive_batcher.cli.send.rejects import Rejects, rejected_path
from honeyhive_batcher.cli.send.source import ReadError, Source

from .conftest import DEADLINE


@given(st.lists(st.sampled_from([b"\n", b"a", b"bc", b"defghij"]) | st.binary(max_size=6), max_size=30))
def test_lines_are_those_of_the_bytes_however_they_are_cut(blocks: list[bytes]) -> None:
    splitter = LineSplitter(8)
    pieces = [line for block in blocks for line in splitter.feed(block)] + splitter.finish()
    data = b"".join(blocks)
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    joined = [b""] * len(expected)
    for piece in pieces:
        joined[piece.number - 1] += piece.data
        assert len(piece.data) <= 8 + max(map(len, blocks))
    assert joined == expected
    assert [piece.number for piece in pieces if piece.begins] == list(range(1, len(expected) + 1))
    assert [piece.number for piece in pieces if piece.ends] == list(range(1, len(expected) + 1))


def test_only_a_line_beyond_the_limit_comes_in_pieces() -> None:
    splitter = LineSplitter(4)
    assert splitter.feed(b"1234") == []
    assert splitter.feed(b"\n12345") == [Line(1, b"1234"), Line(2, b"12345", ends=False)]
    assert splitter.feed(b"67") == []
    assert splitter.feed(b"\n") == [Line(2, b"67", begins=False)]
    assert splitter.finish() == []


def test_an_id_is_made_where_there_is_none_and_kept_where_there_is() -> None:
    made, event = read_event(b'{"model": "m", "event_id": null}')
    assert event["event_id"] == made
    assert len(made) == 36
    assert read_event(b'{"event_id": "mine"}') == ("mine", {"event_id": "mine"})


def test_a_byte_order_mark_is_taken_off_the_first_line_only() -> None:
    data = b'\xef\xbb\xbf{"event_id":"e"}'
    assert read_event(data, is_first=True)[0] == "e"
    with pytest.raises(LineError, match="malformed"):
        read_event(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "input data was truncated"),
        (b'{"a":NaN}', "JSON is malformed: invalid character (byte 5)"),
        (b'{"a":1e999}', "number out of range"),
        (b'"text"', "not a JSON object"),
        (b"\xc3", "not UTF-8 (byte 1)"),
        (b'{"a":"\\udc00 \\ud83d"}', "a string in it holds half of a character (a lone surrogate)"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
        (b'{"event_id":""}', "event_id is not a string of printable characters"),
        (b'{"event_id":"a\\u0000"}', "event_id is not a string of printable characters"),
    ],
)
def test_what_is_no_event_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(LineError) as raised:
        read_event(data)
    assert str(raised.value) == reason


@pytest.mark.parametrize(
    ("name", "rejected"),
    [
        ("events.jsonl", "events.rejected.jsonl"),
        ("events.jsonl.gz", "events.rejected.jsonl"),
        ("events.txt", "events.txt.rejected.jsonl"),
        ("events", "events.rejected.jsonl"),
    ],
)
def test_rejected_lines_go_beside_the_file(tmp_path: Path, name: str, rejected: str) -> None:
    (tmp_path / name).touch()
    source = Source(str(tmp_path / name))
    source.close()
    assert rejected_path(source) == tmp_path / rejected


def test_rejected_lines_of_a_pipe_go_here(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    source = Source(f"/dev/fd/{reader}")
    try:
        assert (source.size, rejected_path(source)) == (None, Path(f"{reader}.rejected.jsonl"))
    finally:
        source.close()
        os.close(reader)
        os.close(writer)


async def all_lines(source: Source) -> list[Line]:
    return [line async for lines in source.lines(1000) for line in lines]


@pytest.mark.anyio
async def test_a_source_knows_how_far_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"1\n2")
    source = Source(str(path))
    assert (source.position, source.size) == (0, 3)
    assert await all_lines(source) == [Line(1, b"1"), Line(2, b"2")]
    assert source.position == 3


@pytest.mark.anyio
async def test_a_source_is_read_only_a_few_blocks_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    must_wait = threading.Event()

    class Watched(threading.Semaphore):
        def acquire(self, *how: Any, **more: Any) -> bool:
            if how or more:  # executors have one as well
                return super().acquire(*how, **more)
            if not super().acquire(blocking=False):
                must_wait.set()
                super().acquire()
            return True

    monkeypatch.setattr(threading, "Semaphore", Watched)
    path = tmp_path / "f"
    path.write_bytes(b"x" * 99 + b"\n" + (b"y" * 99 + b"\n") * 50_000)
    source = Source(str(path))
    async with aclosing(source.lines(1000)) as chunks:
        first = await anext(chunks)
        assert await asyncio.to_thread(must_wait.wait, DEADLINE)
        assert source.position == 3 * 64 * 1024
        assert len(first) + sum([len(lines) async for lines in chunks]) == 50_001
        assert source.position == path.stat().st_size


@pytest.mark.anyio
async def test_a_pipe_that_does_not_block_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    is_waiting = threading.Event()

    def selecting(*lists: Any) -> Any:
        is_waiting.set()
        return real(*lists)

    real = select.select
    monkeypatch.setattr(select, "select", selecting)
    reader, writer = os.pipe()
    source = Source(f"/dev/fd/{reader}")
    os.set_blocking(source._raw.fileno(), False)
    lines = asyncio.ensure_future(all_lines(source))
    await asyncio.to_thread(is_waiting.wait)
    os.write(writer, b"late\n")
    os.close(writer)
    assert await lines == [Line(1, b"late")]
    os.close(reader)


@pytest.mark.anyio
async def test_a_source_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "f").write_bytes(b"1\n")
    source = Source(str(tmp_path / "f"))
    monkeypatch.setattr(type(source._raw), "readinto", fail)
    with pytest.raises(ReadError, match="Input/output error"):
        await all_lines(source)


def test_a_file_for_rejected_lines_that_came_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    rejects = Rejects(path, numbered=False)
    path.write_bytes(b"theirs")
    rejects.write(b"ours")
    assert (rejects.failure, rejects.is_made) == ("File exists", False)
    assert path.read_bytes() == b"theirs"
