"""What a reply says about each fragment of its batch: the body is read before the status.

HoneyHive answers a partial success with status 500 and `{event_ids, errors, success: true}` (OpenAPI
1.1.0; 2.0 no longer documents the body). `errors` carry no index, so only the difference between the
ids sent and the ids returned tells what is missing. Nothing is taken for granted about the body.
"""

from collections import Counter
from typing import TypeAlias, assert_never

from msgspec import Struct

from honeyhive_batcher.core import wire
from honeyhive_batcher.core.fragment import Fragment, ids_of
from honeyhive_batcher.core.model import Batch, Failure, Reply, Response


class Delivered(Struct, frozen=True):
    """The server has all of it."""


class Partly(Struct, frozen=True, kw_only=True, eq=False):
    """The server has some of it, or says that it has none."""

    delivered: tuple[Fragment, ...]
    rest: tuple[Fragment, ...]
    accounted: bool
    """There is an error message for each of the rest: it was looked at and left out."""
    attributed: bool = True
    """False when some of the rest was taken as well, under ids of the server's own: nobody knows which."""
    cause: str


class NotNow(Struct, frozen=True, kw_only=True):
    """Surely not taken; it may be sent again."""

    cause: str
    unsent: bool
    """The server was not even reached."""
    retry_after: float | None = None


class Ambiguous(Struct, frozen=True, kw_only=True):
    """Nobody knows whether the server has it."""

    cause: str
    retry_after: float | None = None


class TooLarge(Struct, frozen=True, kw_only=True):
    """The body is larger than the server takes."""

    cause: str


class Refused(Struct, frozen=True, kw_only=True):
    """The server will not take this body, because of one event in it or of all."""

    cause: str


class NotCompressed(Struct, frozen=True, kw_only=True):
    """The server did not take this body compressed; whether it would in plain is not known yet."""

    cause: str


class Misconfigured(Struct, frozen=True, kw_only=True):
    """The server will take no body at all until somebody changes a setting."""

    cause: str
    retry_after: float | None = None


Verdict: TypeAlias = (
    Delivered | Partly | NotNow | Ambiguous | TooLarge | Refused | NotCompressed | Misconfigured
)

_NOT_NOW = {408, 425, 429, 503}
_NOT_COMPRESSED = {400, 415}
_NO_UPDATE = {402, 403, 404, 405, 410, 501}  # 400 and 422 are refusals in any case
_MISCONFIGURED = {401, 402, 403, 404, 405, 407, 410}


def judge(batch: Batch, reply: Reply) -> Verdict:
    """Return what `reply` says about `batch`."""
    match reply:
        case Failure(cause=cause, unsent=True):
            return NotNow(cause=cause, unsent=True)
        case Failure(cause=cause):
            return Ambiguous(cause=cause)
        case Response():
            return _judge_response(batch, reply)
    assert_never(reply)


def _judge_response(batch: Batch, response: Response) -> Verdict:
    status = response.status
    cause = f"HTTP {status}"
    if 200 <= status < 300 or status == 500:
        facts = wire.read_reply(response.body)
        named = _judge_names(batch, facts, cause, succeeded=status != 500) if batch.events else None
        if named is not None:
            return named
        if status != 500 and facts.success:
            return Delivered()  # no word about single events, as from a proxy that swallows the body
        cause += "" if facts.success else " with success: false"
        return Ambiguous(cause=cause, retry_after=response.retry_after)
    if status in _NOT_COMPRESSED and response.compressed:
        return NotCompressed(cause=f"{cause} to a compressed body")
    if status in _NOT_NOW:
        return NotNow(cause=cause, unsent=False, retry_after=response.retry_after)
    if status == 413:
        return TooLarge(cause=cause)
    if not batch.events and status in _NO_UPDATE:
        return Refused(cause=cause)  # of a session that it does not know, or on a route that it has not
    if status in _MISCONFIGURED or 300 <= status < 400:
        return Misconfigured(cause=cause, retry_after=response.retry_after)
    if status == 409 and len(batch.fragments) == 1 and batch.events:
        return Delivered()  # the server has an event of this id: ours, whose answer was lost
    if status >= 500 or status < 200:
        return Ambiguous(cause=cause, retry_after=response.retry_after)
    return Refused(cause=cause)  # 400, 422, and whatever else names a fault of the request


def _judge_names(batch: Batch, facts: wire.ReplyFacts, cause: str, *, succeeded: bool) -> Verdict | None:
    """Return the verdict that the returned ids and errors allow, or None if they allow none."""
    if facts.event_ids is None and not (facts.errors and succeeded):
        return None
    events = batch.events
    if facts.event_ids == ids_of(events):
        return Delivered()  # the usual case, kept short
    # Counted, not only looked up: an application may give two events one id. UUIDs are compared
    # without regard to case, since RFC 9562 lets a server write them in either.
    returned = Counter(name.lower() for name in facts.event_ids or ())
    delivered: list[Fragment] = []
    rest: list[Fragment] = []
    for fragment in events:
        name = fragment.event_id.lower()
        if returned[name] > 0:
            returned[name] -= 1
            delivered.append(fragment)
        else:
            rest.append(fragment)
    if not rest:
        return Delivered()
    ours = {fragment.event_id.lower() for fragment in events} | {batch.key.session_id.lower()}
    foreign = len(returned.keys() - ours - {""})  # distinct: a server that makes ids repeats none
    accounted = facts.errors >= len(rest)
    attributed = not foreign
    if foreign:
        if not facts.success and not delivered:
            return None
        if foreign >= len(rest) and succeeded and facts.success and not facts.errors:
            return Delivered()  # the server made ids of its own, one for each
        cause = f"{cause} that names events by other ids"
    elif not delivered and not accounted:
        if facts.event_ids is not None or not facts.success:
            return Ambiguous(cause=f"{cause} that names no event") if succeeded else None
        attributed = False
        cause = f"{cause} with errors for some events, and without ids"
    return Partly(
        delivered=tuple(delivered), rest=tuple(rest), accounted=accounted, attributed=attributed, cause=cause
    )
