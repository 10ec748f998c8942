"""The exceptions a caller can act on.

A failed delivery is not among them: it is an outcome, found in `Statistics`, `FlushResult`
and the callbacks.
"""

from typing import final


class BatcherError(Exception):
    """The root of every exception that this package raises on purpose."""


@final
class ConfigError(BatcherError, ValueError):
    """A setting is missing or wrong; the message names the setting, the value and what would do."""


@final
class EncodeError(BatcherError, ValueError):
    """`put` was given something that can never be an event; the message says why, never what it held."""


@final
class ClosedError(BatcherError, RuntimeError):
    """`put` was called on a batcher that is closing or closed; start it again to go on."""


@final
class InternalError(BatcherError, RuntimeError):
    """An invariant of this package is broken: our bug, never the caller's and never the network's."""
