"""What a push has to do to keep the promises, in one function: a floor, and no program anyone could keep.

An encode that stops at a bound, a look for numbers that became null, an id, and a place in a queue whose
events and bytes are bounded and whose numbers are true, from any thread. None of Python's own calls between.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from honeyhive_batcher.core.fragment import APPENDED, Fragment
from honeyhive_batcher.core.to_json import likely_nulls_in
from honeyhive_batcher.runtime.ids import ids

_ROOM = 4096
_COMMA = b","[0]


class Floor:
    """The queue, and the function that fills it."""

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self.queue: deque[Fragment] = deque()
        self.lock = threading.RLock()
        self.held = 0
        self.held_bytes = 0
        self.push = self._push(max_events, max_bytes)

    def _push(self, max_events: int, max_bytes: int) -> Callable[[dict[str, Any]], bool]:
        encode_into = msgspec.json.Encoder().encode_into
        nulls = likely_nulls_in
        make_id, clock = ids.next, time.monotonic
        queue, lock = self.queue, self.lock

        def push(event: dict[str, Any]) -> bool:
            event_id = event.get("event_id")
            buffer = bytearray(_ROOM)
            view = memoryview(buffer)  # keeps it from growing
            encode_into(event, buffer)
            del view
            if event_id is not None or len(nulls(buffer)) > (event.get("error", 0) is None):
                return False
            buffer[-1] = _COMMA
            data = b"".join((buffer, b'"event_id":"', make_id(), b'"}'))
            fragment = Fragment(data, APPENDED)
            size = len(data)
            now = clock()
            with lock:
                if self.held >= max_events or self.held_bytes + size > max_bytes:
                    return False
                self.held += 1
                self.held_bytes += size
                fragment.seq, fragment.accepted_at = self.held, now
                queue.append(fragment)
            return True

        return push
