"""How long to wait after failures: exponentially longer, and by chance."""

from honeyhive_batcher.config import RetryLimits
from honeyhive_batcher.core.model import Jitter

_MAX_DOUBLINGS = 60  # beyond it every back-off is at its longest, and a float would overflow later


def backoff(limits: RetryLimits, failures: int, jitter: Jitter) -> float:
    """Return the seconds that a batch waits after so many failures in a row: exponential, full jitter.

    Full jitter (anything from nothing to the whole wait) because it spreads the clients of a server
    that pushes back most evenly.
    """
    return jitter() * min(limits.backoff_max, _doubled(limits, failures - 1))


def probe_wait(limits: RetryLimits, probes: int, jitter: Jitter) -> float:
    """Return the seconds before the next probe of an endpoint that is down, after so many failed.

    From the doubled base to twice as much, and never longer than the longest. Full jitter would send
    twice the probes for the same longest wait. This much still spreads those that went down together
    over the longest wait, on the way to it; once there, nothing brings them together again.
    """
    return min(limits.backoff_max, _doubled(limits, probes) * (1.0 + jitter()))


def _doubled(limits: RetryLimits, times: int) -> float:
    return limits.backoff_base * 2.0 ** min(max(times, 0), _MAX_DOUBLINGS)
