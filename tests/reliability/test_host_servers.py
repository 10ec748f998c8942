"""Every request that got its answer has its event, once, however the server is stopped."""

import pytest

from honeyhive_batcher.testing import collector_in_thread
from tests.reliability import host_servers
from tests.reliability.host_servers import PARTS
from tests.reliability.rows import Size, assert_rows


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_answered_request_has_its_event_once(part: host_servers.Part) -> None:
    with collector_in_thread() as hive:
        assert_rows(lambda _: part(hive, 100), Size.QUICK)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_every_answered_request_has_its_event_once_at_length() -> None:
    assert_rows(host_servers.rows, Size.FULL)
