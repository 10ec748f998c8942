"""What the log says, and how often: a loss is named and counted, a trouble told once.

Nothing here holds a payload, a header or a key: the lines are made of counts, of reasons, and of
causes worded by this package.
"""

import contextlib
import logging
from typing import Any, final
from urllib.parse import urlsplit

from honeyhive_batcher.core.ledger import Ledger, Statistics
from honeyhive_batcher.core.model import Admission, Endpoint
from honeyhive_batcher.errors import InternalError

logger = logging.getLogger("honeyhive_batcher")
# No NullHandler: where nobody has configured logging, Python shows warnings and errors on stderr. To lose
# events in silence would be worse than to speak unasked.

_QUIET = 60.0
"""Seconds between two lines about the same kind of thing, at first; while it goes on each pause is twice
the one before."""
_MAX_QUIET = 900.0
_UNCONFIRMED = "unconfirmed"
_OUTAGE = 30.0
"""Seconds of trouble after which it is an outage, and worth an ERROR."""


def say(
    level: int,
    message: str,
    *values: object,
    kind: str,
    error: Exception | None = None,
    **fields: str | float,
) -> None:
    """Log a line. Never raises: a handler of the host's that fails must not end the worker, nor a push.

    `kind` and `fields` become attributes of the record, for programs that read the log. README explains each
    name; it means the same, and has the same type, in every line.
    """
    with contextlib.suppress(Exception):
        # stacklevel: the line is the caller's, not this one's.
        logger.log(level, message, *values, exc_info=error, stacklevel=2, extra={"kind": kind, **fields})


_ADVICE = {
    "HTTP 401": "the API key was not accepted; check HH_INGESTION_API_KEY or HH_API_KEY, and that the key "
    "belongs to this deployment",
    "HTTP 403": "the API key may not write events; use a key with that right",
    "HTTP 404": "there is no HoneyHive at this address; check HH_API_URL",
    "HTTP 407": "the proxy wants a login; check HTTPS_PROXY",
}
_REDIRECTED = "the address redirects elsewhere, and events are not sent on; check HH_API_URL"
_OTHER = "the server will not take events like this; check HH_API_URL and the API key"


def advice(cause: str) -> str:
    """Return what to do about an endpoint that is held because of `cause`."""
    return _ADVICE.get(cause, _REDIRECTED if cause.startswith("HTTP 3") else _OTHER)


@final
class Reporter:
    """Turns the ledger's changes into few log lines."""

    def __init__(self, base_url: str) -> None:
        self._host = urlsplit(base_url).netloc
        self._told: dict[str, int] = {}  # losses by reason that the log knows of
        self._losses_told = 0  # all of them
        self._told_at = float("-inf")
        self._loss_pause = _QUIET
        self._endpoint = Endpoint.UNKNOWN
        self._troubled_at: float | None = None
        self._warned_at = float("-inf")
        self._trouble_pause = _QUIET
        self._has_warned = False
        self._has_erred = False
        self._has_told_plain = False

    def observe(self, ledger: Ledger, now: float, *, is_closing: bool) -> None:
        """Log what is new and due; what is lost while closing is left to `closed`."""
        if ledger.is_plain and not self._has_told_plain:
            self._has_told_plain = True
            say(
                logging.WARNING,
                "%s does not take compressed bodies; from now on they are plain (compression='none' says so "
                "from the beginning)",
                self._host,
                kind="compression_refused",
                host=self._host,
            )
        if is_closing:
            self._observe_endpoint(ledger, now, "")
            return
        kept = f". {ledger.held_events} events are kept; it is asked again every minute"
        self._observe_endpoint(ledger, now, kept)
        if self.owes_a_line(ledger) and now >= self._told_at + self._loss_pause:
            went_on = now < self._told_at + 2.0 * self._loss_pause
            self._loss_pause = min(2.0 * self._loss_pause, _MAX_QUIET) if went_on else _QUIET
            self._tell_losses(_losses(ledger), ledger, now)

    def owes_a_line(self, ledger: Ledger) -> bool:
        """Return whether something was lost that the log does not know of yet."""
        return ledger.losses != self._losses_told

    def due_at(self, ledger: Ledger) -> float | None:
        """Return when there will be something to log even if nothing else happens."""
        instants = []
        if self.owes_a_line(ledger):
            instants.append(self._told_at + self._loss_pause)
        if self._troubled_at is not None and not self._has_erred and ledger.held_events:
            instants.append(self._troubled_at + _OUTAGE)
        return min(instants, default=None)

    def failed(self, error: Exception) -> None:
        """Log that the worker failed: once, with its traceback."""
        if not isinstance(error, InternalError):
            # What Python itself raises may quote what it stumbled over: only where and which is told.
            error = InternalError(type(error).__name__).with_traceback(error.__traceback__)
        say(
            logging.ERROR,
            "the batcher's worker failed and is closed; this is a bug of honeyhive_batcher",
            kind="worker_failed",
            error=error,
        )

    def closed(self, before: Statistics, ledger: Ledger, now: float) -> None:
        """Log how closing went since `before`: one line, a warning if anything was lost meanwhile."""
        earlier = _named(before.dropped, before.refused, before.unconfirmed)
        if earlier != self._told:
            self._tell_losses(earlier, ledger, now)
        lost = ledger.dropped.total() - sum(before.dropped.values())
        unconfirmed = ledger.unconfirmed - before.unconfirmed
        numbers: dict[str, Any] = {
            "delivered": ledger.delivered - before.delivered,
            "dropped": lost,
            "unconfirmed": unconfirmed,
        }
        if lost or unconfirmed:
            say(
                logging.WARNING,
                "closed: of the %d events still held %d were delivered, %d dropped, %d unconfirmed "
                "(sent, but no answer came)%s",
                before.held,
                numbers["delivered"],
                lost,
                unconfirmed,
                f"; the last error was: {ledger.last_error}" if ledger.last_error else "",
                kind="closed",
                held=before.held,
                lost=lost + unconfirmed,
                cause=ledger.last_error or "",
                **numbers,
            )
        else:
            say(logging.DEBUG, "closed: nothing was lost", kind="closed", held=before.held, lost=0, **numbers)
        self._know(_losses(ledger))

    def _tell_losses(self, losses: dict[str, int], ledger: Ledger, now: float) -> None:
        news = {reason: count - self._told.get(reason, 0) for reason, count in losses.items()}
        text = ", ".join(f"{count} {reason}" for reason, count in news.items() if count)
        lost, unconfirmed = sum(news.values()), news.get(_UNCONFIRMED, 0)
        refused = sum(count for name, count in news.items() if name != _reason(name))
        cause = f"; the last error was: {ledger.last_error}" if ledger.last_error else ""
        since = " since the last such line" if self._told else ""
        say(
            logging.WARNING,
            "events lost%s: %s%s",
            since,
            text,
            cause,
            kind="events_lost",
            reason=",".join(_reason(name) for name, count in news.items() if count),
            lost=lost,
            refused=refused,
            unconfirmed=unconfirmed,
            dropped=lost - refused - unconfirmed,
            held=ledger.held_events,
            cause=ledger.last_error or "",
        )
        self._know(losses)
        self._told_at = now

    def _know(self, losses: dict[str, int]) -> None:
        self._told, self._losses_told = losses, sum(losses.values())

    def _observe_endpoint(self, ledger: Ledger, now: float, kept: str) -> None:
        endpoint, was = ledger.endpoint, self._endpoint
        self._endpoint = endpoint
        cause = ledger.last_error or "no reason given"
        if endpoint is Endpoint.HELD:
            self._troubled_at = None
            if was is not Endpoint.HELD:
                self._has_warned = True
                text = (self._host, cause, advice(cause), kept)
                say(
                    logging.ERROR,
                    "%s answers %s: %s%s",
                    *text,
                    kind="endpoint_held",
                    **self._trouble(ledger, cause),
                )
        elif endpoint is Endpoint.BACKING_OFF:
            if self._troubled_at is None or not ledger.held_events:  # nobody waits for it
                self._troubled_at = now
            if now >= self._troubled_at + _OUTAGE and not self._has_erred:
                self._has_erred = self._has_warned = True
                self._warned_at, self._trouble_pause = now, _QUIET
                say(
                    logging.ERROR,
                    "%s has not taken events for %.0f s (%s); %d are kept and tried again",
                    self._host,
                    now - self._troubled_at,
                    cause,
                    ledger.held_events,
                    kind="outage",
                    seconds=now - self._troubled_at,
                    **self._trouble(ledger, cause),
                )
            elif self._has_erred and now >= self._warned_at + self._trouble_pause:
                self._warned_at, self._trouble_pause = now, min(2.0 * self._trouble_pause, _MAX_QUIET)
                say(
                    logging.WARNING,
                    "%s still takes no events (%s), for %.0f s now; %d are kept",
                    self._host,
                    cause,
                    now - self._troubled_at,
                    ledger.held_events,
                    kind="outage",
                    seconds=now - self._troubled_at,
                    **self._trouble(ledger, cause),
                )
            elif not self._has_erred and now >= self._warned_at + _QUIET and ledger.held_events:
                self._warned_at = now
                self._has_warned = True
                say(
                    logging.WARNING,
                    "%s did not take a batch (%s); it is tried again",
                    self._host,
                    cause,
                    kind="batch_not_taken",
                    **self._trouble(ledger, cause),
                )
        elif endpoint is Endpoint.HEALTHY:
            self._troubled_at = None
            self._has_erred = False
            self._loss_pause = _QUIET
            if was is not Endpoint.HEALTHY and self._has_warned:
                self._has_warned = False
                say(
                    logging.INFO,
                    "%s takes events again",
                    self._host,
                    kind="recovered",
                    host=self._host,
                    held=ledger.held_events,
                )

    def _trouble(self, ledger: Ledger, cause: str) -> dict[str, Any]:
        return {"host": self._host, "cause": cause, "held": ledger.held_events}


def _losses(ledger: Ledger) -> dict[str, int]:
    dropped = {reason.value: count for reason, count in dict(ledger.dropped).items()}
    refused = {admission.value: count for admission, count in ledger.refused.items() if count}
    return _named(dropped, refused, ledger.unconfirmed)


def _named(dropped: dict[str, int], refused: dict[str, int], unconfirmed: int) -> dict[str, int]:
    losses = dropped | {
        f"refused ({reason})": count for reason, count in refused.items() if reason != Admission.SAMPLED.value
    }
    return losses | {_UNCONFIRMED: unconfirmed} if unconfirmed else losses


def _reason(name: str) -> str:
    """Return the reason's own name, without what tells in a line that it was a refusal."""
    return name.removeprefix("refused (").removesuffix(")")
