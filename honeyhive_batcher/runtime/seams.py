"""Where time, chance and the network come in."""

import random
import time
from collections.abc import Callable

from msgspec import Struct

from honeyhive_batcher.config import Config
from honeyhive_batcher.core.fragment import Ids
from honeyhive_batcher.core.model import Clock, Jitter
from honeyhive_batcher.runtime.ids import ids
from honeyhive_batcher.runtime.transport import AiohttpTransport, Nowhere, Transport


def _transport(config: Config) -> Transport:
    return Nowhere() if config.endpoint.test_mode else AiohttpTransport(config.endpoint)


class Seams(Struct, frozen=True, kw_only=True):
    """What a batcher takes from outside itself; tests put their own here."""

    clock: Clock = time.monotonic
    jitter: Jitter = random.random
    chance: Callable[[], float] = random.random
    """Decides which events without a name are in a sample: a number drawn evenly from [0, 1)."""
    ids: Ids = ids
    transport: Callable[[Config], Transport] = _transport
    starts_itself: bool = False
    """Whether the first push leads to a start: then an event before it is nothing to warn about."""
