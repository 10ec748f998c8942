"""The collector's own routes under `/_dev`: look at what is stored, clear it, misbehave."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Raw, structs

from honeyhive_batcher.collector.answer import JSON
from honeyhive_batcher.collector.body import WireCount, read_body
from honeyhive_batcher.collector.endpoint import Endpoint, refusal
from honeyhive_batcher.collector.faults import Faults
from honeyhive_batcher.collector.guard import check_content_type, check_host
from honeyhive_batcher.collector.refusal import RefusedError
from honeyhive_batcher.collector.rows import StoredEvent
from honeyhive_batcher.collector.store import Store
from honeyhive_batcher.errors import ConfigError

_DEFAULT_LIMIT: Final = 100
_MAX_LIMIT: Final = 1000
_EVENT_FILTERS: Final = ("model", "session_id", "event_id")

_Route = Callable[[web.Request], Awaitable[web.StreamResponse]]


def dev_routes(store: Store, endpoint: Endpoint) -> list[web.RouteDef]:
    """Make the routes under `/_dev`. They need no key, take no faults and are not recorded."""

    async def events(request: web.Request) -> web.Response:
        limit, offset, where = _window(request.query, _EVENT_FILTERS)
        return _json([_shown(event) for event in store.events(limit=limit, offset=offset, where=where)])

    async def sessions(request: web.Request) -> web.Response:
        limit, offset, _ = _window(request.query, ())
        return _json(store.sessions(limit=limit, offset=offset))

    async def requests(request: web.Request) -> web.Response:
        limit, offset, _ = _window(request.query, ())
        return _json(store.requests(limit=limit, offset=offset))

    async def stats(_request: web.Request) -> web.Response:
        return _json(store.stats())

    async def clear(_request: web.Request) -> web.Response:
        store.clear()
        return _json({"success": True})

    async def show_faults(_request: web.Request) -> web.Response:
        return _json(endpoint.faults)

    async def replace_faults(request: web.Request) -> web.Response:
        check_content_type(request)
        body = await read_body(request.content.iter_any(), request.content_length, WireCount())
        try:
            endpoint.faults = Faults.from_json(body)
        except ConfigError as wrong:
            raise RefusedError(400, str(wrong)) from None
        return _json(endpoint.faults)

    return [
        # No HEAD beside GET: what is not listed here is an explicit 404.
        web.get("/_dev/events", _guarded(events), allow_head=False),
        web.delete("/_dev/events", _guarded(clear)),
        web.get("/_dev/sessions", _guarded(sessions), allow_head=False),
        web.get("/_dev/requests", _guarded(requests), allow_head=False),
        web.get("/_dev/stats", _guarded(stats), allow_head=False),
        web.get("/_dev/faults", _guarded(show_faults), allow_head=False),
        web.post("/_dev/faults", _guarded(replace_faults)),
    ]


def _guarded(route: _Route) -> _Route:
    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            check_host(request)
            return await route(request)
        except RefusedError as refused:
            return refusal(refused)

    return guarded


def _window(query: Mapping[str, str], filters: Collection[str]) -> tuple[int, int, dict[str, str]]:
    """Read limit, offset and filters. A misspelt filter must not show everything, so it is refused."""
    for name in query:
        if name not in ("limit", "offset", *filters):
            raise RefusedError(400, f"{name}: not a parameter of this route")
    limit = _whole(query, "limit", _DEFAULT_LIMIT, most=_MAX_LIMIT)
    offset = _whole(query, "offset", 0, most=2**63 - 1)
    return limit, offset, {name: query[name] for name in filters if name in query}


def _whole(query: Mapping[str, str], name: str, default: int, *, most: int) -> int:
    text = query.get(name, str(default))
    # The length first: int() of a very long text raises something of its own.
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= most):
        raise RefusedError(400, f"{name}: expected a whole number from 0 to {most}")
    return int(text)


def _shown(event: StoredEvent) -> dict[str, Any]:
    columns = structs.asdict(event)
    columns["event"] = Raw(columns.pop("raw"))
    return columns


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), headers={"Content-Type": JSON})
