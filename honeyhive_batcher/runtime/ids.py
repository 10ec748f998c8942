"""Event ids: random UUIDs at a tenth of what `str(uuid.uuid4())` costs, which is more than encoding an event.

An id is 74 random bits, drawn once a process, and a 48-bit count that begins at random.
"""

import itertools
import os
from typing import final

from honeyhive_batcher.runtime.fork import at_fork

_LAST = 1 << 47  # far enough from 48 bits that no program comes there


@final
class IdSource:
    """Makes UUIDs (version 4, RFC 9562) that nobody else makes. Safe in any thread.

    In a forked child it draws anew, lest parent and child make the same ids.
    """

    def __init__(self) -> None:
        self._renew()
        at_fork(self)

    def after_fork(self) -> None:
        """Draw anew: the parent goes on with these."""
        self._renew()

    def _renew(self) -> None:
        digits = os.urandom(17).hex()
        variant = "89ab"[int(digits[15], 16) & 3]
        prefix = f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-{variant}{digits[16:19]}-"
        first = int(digits[20:32], 16) % _LAST
        # Nothing of Python's own is called for an id: that would cost as much again.
        self.next = map((prefix.encode() + b"%012x").__mod__, itertools.count(first)).__next__
        """Returns an id that nobody had before."""


ids = IdSource()
