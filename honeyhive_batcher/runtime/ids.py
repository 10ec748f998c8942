"""Event ids: random UUIDs at a tenth of what `str(uuid.uuid4())` costs, which is more than encoding an event.

An id is 74 random bits, drawn anew for every few thousand ids, and a 48-bit count that begins at random.
"""

import itertools
import os
from typing import final

from honeyhive_batcher.runtime.fork import at_fork

_IDS_PER_PREFIX = 4096
_LAST = 1 << 47  # far enough from 48 bits that threads which overtake the count do no harm


@final
class IdSource:
    """Makes UUIDs (version 4, RFC 9562) that nobody else makes. Safe in any thread.

    In a forked child it draws anew, lest parent and child make the same ids.
    """

    def __init__(self) -> None:
        self._renew()
        at_fork(self)

    def after_fork(self) -> None:
        """Draw a new prefix: the parent goes on with this one."""
        self._renew()

    def _renew(self) -> None:
        digits = os.urandom(17).hex()
        variant = "89ab"[int(digits[15], 16) & 3]
        prefix = f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-{variant}{digits[16:19]}-"
        first = int(digits[20:32], 16) % _LAST
        # One assignment, so that no thread sees the prefix of one and the count of another.
        self._next = map((prefix + "%012x").__mod__, itertools.count(first)).__next__
        self._left = _IDS_PER_PREFIX

    def __call__(self) -> str:
        """Return an id that nobody had before."""
        self._left -= 1
        if self._left < 0:
            self._renew()
        return self._next()


new_id = IdSource()
