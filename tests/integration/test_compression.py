"""Bodies are compressed where it pays, in a thread, and plain again for a server that will not have them."""

import json
import logging
import sys
import threading
import zlib
from typing import Any

import pytest
import zstandard

from honeyhive_batcher import Batcher, ConfigError
from honeyhive_batcher.core.request import Request
from honeyhive_batcher.runtime import compression
from honeyhive_batcher.runtime.compression import Compression
from honeyhive_batcher.testing import collector
from tests.fakes import check_ledger
from tests.integration.raw_server import Connection, RawServer, content_length, good

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]


def request_of(body: bytes) -> Request:
    return Request(method="POST", path="/", parts=(body,), max_reply_bytes=1)


TEXT = "It was the best of times, it was the worst of times. " * 40
EVENT = {
    "project": "shop",
    "model": "gpt-4o",
    "provider": "openai",
    "messages": [{"role": "user", "content": TEXT}],
    "response": {},
    "duration": 1,
    "usage": {},
}


class Picky(RawServer):
    """Takes bodies of some encodings, and answers others with a status."""

    def __init__(self, *taken: str, status: int = 415, poison: str = "") -> None:
        super().__init__()
        self.encodings: list[str] = []
        self._taken_encodings = taken
        self._status = status
        self._poison = poison

    def next_fault(self) -> Any:
        return self._answer

    async def _answer(self, connection: Connection) -> bool:
        head = (await connection.head()).decode().lower()
        body = await connection.reader.readexactly(content_length(head.encode()))
        _, found, rest = head.partition("content-encoding: ")
        encoding = rest.split("\r\n")[0] if found else ""
        self.encodings.append(encoding)
        events = json.loads(plain(body, encoding))["model_events"]
        is_poisoned = any(event["model"] == self._poison for event in events)
        if encoding not in self._taken_encodings or is_poisoned:
            await connection.answer(400 if is_poisoned else self._status)
            return True
        ids = [event["event_id"] for event in events]
        self.taken += ids
        await connection.answer(200, json.dumps({"success": True, "event_ids": ids}).encode())
        return True


def plain(body: bytes, encoding: str) -> bytes:
    match encoding:
        case "gzip":
            return zlib.decompress(body, wbits=31)
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(body)
        case _:
            return body


def batcher(server: RawServer, compression: Any, **settings: Any) -> Batcher:
    return Batcher(api_key="hh_test", base_url=server.url, compression=compression, **settings)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
async def test_a_body_arrives_compressed(codec: str) -> None:
    async with Picky(codec) as server, batcher(server, codec) as ours:
        for number in range(50):
            ours.push({**EVENT, "event_id": f"e{number}"})
        assert (await ours.flush()).delivered == 50
    assert server.encodings == [codec]
    assert server.taken == [f"e{number}" for number in range(50)]


async def test_none_is_the_default_and_says_nothing_of_an_encoding() -> None:
    async with (
        Picky("", "gzip", "zstd") as server,
        Batcher(api_key="hh_test", base_url=server.url) as ours,
    ):
        ours.push(EVENT)
        assert (await ours.flush()).delivered == 1
    assert server.encodings == [""]


async def test_a_small_body_and_one_that_does_not_shrink_go_as_they_are() -> None:
    noise = bytes(range(33, 91)).decode().replace('"', "").replace("\\", "")
    odd = "".join(noise[(number * number * 7919 + number // 3) % len(noise)] for number in range(3000))
    async with Picky("", "gzip") as server, batcher(server, "gzip") as ours:
        ours.push({"model": "m"})
        assert (await ours.flush()).delivered == 1
        assert server.encodings == [""]
        codec = Compression("gzip")
        assert await codec.of(request_of(b"x" * 1023)) is None
        assert await codec.of(request_of(b"x" * 1024)) is not None
        assert await codec.of(request_of(zlib.compress(odd.encode() * 3, wbits=31))) is None
        codec.close()


@pytest.mark.parametrize("status", [400, 415])
async def test_a_server_that_takes_none_of_it_gets_plain_bodies_from_then_on(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "honeyhive_batcher")
    async with Picky("", status=status) as server, batcher(server, "gzip", max_in_flight=1) as ours:
        for _ in range(3):
            ours.push(EVENT)
            assert (await ours.flush()).delivered == 1
        numbers = check_ledger(ours)
        assert (numbers.requests, numbers.retries, numbers.endpoint) == (4, 0, "healthy")
    assert server.encodings == ["gzip", "", "", ""]
    assert len(set(server.taken)) == len(server.taken) == 3
    lines = [record.getMessage() for record in caplog.records if "compressed" in record.getMessage()]
    assert len(lines) == 1
    assert "does not take compressed bodies" in lines[0]


async def test_a_poison_in_a_compressed_body_is_not_taken_for_a_fault_of_compression() -> None:
    async with Picky("", "gzip", poison="poison") as server, batcher(server, "gzip") as ours:
        for number in range(16):
            ours.push({**EVENT, "model": "poison" if number == 5 else "m", "event_id": f"e{number}"})
        result = await ours.flush()
        assert (result.delivered, result.dropped) == (15, 1)
        ours.push(EVENT)
        assert (await ours.flush()).delivered == 1
        assert check_ledger(ours).dropped == {"rejected": 1}
    assert server.encodings[-1] == "gzip"
    assert len(set(server.taken)) == len(server.taken) == 16


async def test_the_collector_takes_gzip_and_is_given_plain_bodies_in_place_of_zstd() -> None:
    for codec in ("gzip", "zstd"):
        async with (
            collector() as hive,
            Batcher(**hive.settings(), compression=codec) as ours,
        ):
            for _ in range(10):
                ours.push(EVENT)
            assert (await ours.flush()).delivered == 10
            assert len(hive.events()) == 10


async def test_a_codec_that_fails_costs_nothing_but_the_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_body: bytes) -> bytes:
        raise RuntimeError

    monkeypatch.setattr(compression, "_gzip", lambda: fails)
    async with RawServer(good) as server, batcher(server, "gzip") as ours:
        ours.push(EVENT)
        assert (await ours.flush()).delivered == 1
    assert b"content-encoding" not in server.heads[0].lower()


@pytest.mark.parametrize("missing", [(), ("isal",), ("isal", "zlib_ng")])
async def test_what_gzip_is_made_with_is_what_is_installed(
    missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)  # then an import of it fails
        for module in [module for module in sys.modules if module.startswith(f"{name}.")]:
            monkeypatch.setitem(sys.modules, module, None)
    codec = Compression("gzip")
    body = TEXT.encode()
    smaller = await codec.of(request_of(body))
    codec.close()
    assert smaller is not None
    assert len(smaller) < len(body) // 5
    assert zlib.decompress(smaller, wbits=31) == body


def test_zstd_without_its_package_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(ConfigError, match=r"pip install 'honeyhive-batcher\[zstd\]'"):
        Batcher(api_key="hh_test", compression="zstd")


async def test_the_work_is_done_in_a_thread_that_ends_with_the_run() -> None:
    names: list[str] = []
    codec = Compression("gzip")
    compress = codec._compress

    def noted(body: bytes) -> bytes:
        names.append(threading.current_thread().name)
        return compress(body)

    codec._compress = noted
    assert await codec.of(request_of(TEXT.encode())) is not None
    assert names == ["honeyhive_batcher.compression_0"]
    codec.close()
    for thread in threading.enumerate():
        if thread.name in names:
            thread.join(5)
            assert not thread.is_alive()
