"""What the collector does with one request when it does not simply do its job."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct, field

HTML: Final = "text/html; charset=utf-8"
JSON: Final = "application/json; charset=utf-8"

_BAD_GATEWAY: Final = (
    b"<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>\n"
)


class RequestInfo(Struct, frozen=True, kw_only=True):
    """A request that the contract allows, as a step of a script sees it."""

    id: int
    """Its `id` in the `requests` table."""
    method: str
    path: str
    headers: Mapping[str, str]
    """Headers with lower-case names, without Authorization."""
    body: bytes
    """The body, decompressed."""
    events: tuple[dict[str, Any], ...]
    """The events of a batch, decoded; empty for an update."""


class Answer(Struct, frozen=True, kw_only=True):
    """One request's lot. With every field left out, it is what the collector does anyway."""

    created: tuple[int, ...] | None = None
    """Positions of the events to store, from 0; None for all of them, () for none."""
    status: int | None = None
    """HTTP status; None for the documented one: 200, or 500 if only a part is created."""
    body: bytes | None = None
    """Body, byte for byte; None for the documented one, of an error if `status` is one."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Headers on top of Content-Type, or instead of it."""
    delay: float = 0.0
    """Seconds between storing and answering."""
    then: Literal["answer", "drop", "hang"] = "answer"
    """Answer; or cut the connection; or keep it open and say nothing until the collector closes."""
    echo: bool = True
    """Whether the ids answered are the events' own, or ones that the server makes up."""
    fault: str | None = None
    """Name of this misbehaviour in the `requests` table."""

    @classmethod
    def refused(cls, status: int, *, retry_after: str | None = None) -> "Answer":
        """Store nothing, answer `status` with the documented error body."""
        return cls(
            created=(),
            status=status,
            headers={} if retry_after is None else {"Retry-After": retry_after},
            fault=f"fail {status}",
        )

    @classmethod
    def partly(cls, *created: int) -> "Answer":
        """Store the events at these positions only, and answer the partial 500 of OpenAPI 1.1.0."""
        return cls(created=created, fault="partial")

    @classmethod
    def dropped(cls, *, stored: bool) -> "Answer":
        """Cut the connection without an answer, before or after everything is stored."""
        when = "after" if stored else "before"
        return cls(created=None if stored else (), then="drop", fault=f"drop_connection {when} storing")

    @classmethod
    def hung(cls, *, stored: bool = False) -> "Answer":
        """Never answer; nothing is stored unless `stored`."""
        return cls(created=None if stored else (), then="hang", fault="hang")

    @classmethod
    def bad_gateway(cls, *, stored: bool = True) -> "Answer":
        """Answer 502 in HTML like a load balancer that gave up waiting, by default after storing."""
        return cls(
            created=None if stored else (),
            status=502,
            body=_BAD_GATEWAY,
            headers={"Content-Type": HTML},
            fault="fail_after_store" if stored else "fail 502",
        )

    @classmethod
    def garbage(cls, status: int, *, stored: bool) -> "Answer":
        """Answer `status` with a body that is not JSON."""
        return cls(
            created=None if stored else (),
            status=status,
            body=b"<!doctype html><p>Something else answers here",
            headers={"Content-Type": HTML},
            fault=f"garbage {status}",
        )


Step: TypeAlias = Answer | Callable[[RequestInfo], Answer | Awaitable[Answer | None] | None] | None
"""One step of a script: an answer, or who decides on it; None stands for no misbehaviour."""
