"""Closing while the server says nothing; `tests/reliability` has the other ways in which a request fails."""

import asyncio

import pytest

from honeyhive_batcher import Batcher
from tests.fakes import fates
from tests.integration.conftest import eventually
from tests.integration.raw_server import RawServer
from tests.reliability.proxy import Ending, Proxy, Stop, Toxic

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_leaks")]

EVENTS = 4


@pytest.mark.parametrize("ending", [Ending.BLACK_HOLE, Ending.UNREAD])
async def test_closing_while_the_server_hangs_ends_in_time_and_lets_go_of_everything(ending: Ending) -> None:
    hang = Toxic(stop=Stop.HEAD, ending=ending)
    async with RawServer() as server, Proxy(server.port, chance=lambda _: hang) as proxy:
        batcher = Batcher(
            api_key="hh_test", base_url=proxy.url, max_batch_events=1, request_timeout=30.0, flush_interval=0
        )
        await batcher.start()
        for _ in range(EVENTS):
            assert batcher.push({"model": "gpt-4o", "content": "x" * 100_000})
        await eventually(lambda: proxy.met[hang] == EVENTS)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        await batcher.aclose(timeout=0.2)
        assert loop.time() - began_at >= 0.19
        assert fates(batcher) == {"unconfirmed": EVENTS}
