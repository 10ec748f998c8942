"""How long to wait after failures: exponential, with full jitter."""

from honeyhive_batcher.config import RetryLimits
from honeyhive_batcher.core.model import Jitter

_MAX_DOUBLINGS = 60  # beyond it every back-off is at its longest, and a float would overflow later


def backoff(limits: RetryLimits, failures: int, jitter: Jitter) -> float:
    """Return the seconds to wait after so many failures in a row: exponential, with full jitter.

    Full jitter (anything from nothing to the whole wait) because it spreads the clients of a server
    that comes back most evenly.
    """
    doublings = min(max(failures - 1, 0), _MAX_DOUBLINGS)
    return jitter() * min(limits.backoff_max, limits.backoff_base * 2.0**doublings)
