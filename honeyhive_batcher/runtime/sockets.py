"""The sockets of a transport, so that none outlives it, and none brings more at once than a turn may cost.

A request that is given up while its server reads nothing leaves a connection that waits to be rid of the
rest of its body, for ever: neither asyncio nor aiohttp closes a connection before its buffer is empty.
"""

import asyncio
import contextlib
import socket
import weakref
from typing import Any, final

_RECEIVED = 8 * 1024
"""Bytes that may lie ready to be read: twice the usual answer to 100 events, 39 bytes for the id of each.

asyncio reads up to 256 KiB in one turn of the loop. Of a server that says `100 Continue` without end these
are 10,000 answers, and to parse them held the loop up for 40 ms a turn, with each connection; now it is 2 ms.
A longer answer comes in several pieces.
"""
_TURNS = 3
"""Turns of the loop in which a connection notices that its socket is shut, and closes it."""


@final
class Sockets:
    """Makes the sockets of a connector, and shuts those that are left when it is closed."""

    def __init__(self, request_timeout: float) -> None:
        self._user_timeout = max(1, int(request_timeout * 1000))
        self._made: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def __call__(self, address: tuple[Any, ...]) -> socket.socket:
        """Return a socket for an entry of `getaddrinfo`, as the connector's `socket_factory`."""
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            # The kernel gives up what the other side has not taken for as long as a request may last.
            with contextlib.suppress(OSError):
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._user_timeout)
        self._made.add(made)
        return made

    async def shut_down(self) -> None:
        """Shut what is still open after all connections were told to close."""
        left = [each for each in self._made if each.fileno() != -1]
        for each in left:
            with contextlib.suppress(OSError):  # it was never connected, or is no more
                each.shutdown(socket.SHUT_RDWR)
        for _ in range(_TURNS if left else 0):
            await asyncio.sleep(0)
