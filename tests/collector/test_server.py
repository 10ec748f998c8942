"""The collector as one object."""

import socket
from pathlib import Path

import aiohttp
import pytest

from honeyhive_batcher.errors import ConfigError
from honeyhive_batcher.testing import Collector, StoredRequest

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "example.com", "127.0.0.1.example.com"])
def test_an_address_of_the_network_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^host: .* is not a loopback address"):
        Collector(host=host)


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "[::1]")]
)
async def test_every_name_of_the_loopback_serves(host: str, shown: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 here")
    async with Collector(host=host) as hive, aiohttp.ClientSession(hive.url) as client:
        assert hive.url.rpartition(":")[0] == f"http://{shown}"
        async with client.get("/_dev/stats") as response:
            assert response.status == 200


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


async def test_a_taken_port_is_an_os_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    async with Collector() as hive:
        port = int(hive.url.rpartition(":")[2])
        second = Collector(port=port, db=tmp_path / "dev.db")
        with pytest.raises(OSError, match=str(port)):
            await second.start()
        assert "not running" in repr(second)
    assert names_in(tmp_path) == ["dev.db"]


async def test_it_can_be_closed_twice_and_started_again(tmp_path: Path) -> None:
    hive = Collector(db=tmp_path / "dev.db")
    await hive.aclose()
    for _ in range(2):
        await hive.start()
        async with aiohttp.ClientSession(hive.url) as client, client.get("/") as response:
            assert response.status == 404
        await hive.aclose()
        await hive.aclose()
    async with hive:
        assert len(hive.requests()) == 2


async def test_its_repr_says_where_it_is(tmp_path: Path) -> None:
    hive = Collector(db=tmp_path / "dev.db")
    assert repr(hive) == f"<Collector not running db='{tmp_path}/dev.db'>"
    async with hive:
        assert repr(hive) == f"<Collector {hive.url} db='{tmp_path}/dev.db'>"


async def test_what_is_not_running_says_so() -> None:
    hive = Collector()
    for use in (hive.events, hive.sessions, hive.requests, hive.stats, hive.clear, hive.script):
        with pytest.raises(RuntimeError, match="not running"):
            use()


async def test_each_request_is_reported_when_its_answer_is_known() -> None:
    reported: list[StoredRequest] = []
    async with Collector(on_request=reported.append) as hive, aiohttp.ClientSession(hive.url) as client:
        async with client.post("/events/model/batch") as response:
            assert response.status == 401
        assert reported == hive.requests()
