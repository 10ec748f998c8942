"""Who may ask, and in which form: Host, Authorization and Content-Type."""

from typing import Final

from aiohttp import web

from honeyhive_batcher.collector.refusal import RefusedError

LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "::1")
"""What the collector may be bound to, and be called by."""


def check_host(request: web.Request) -> None:
    """Refuse a request that was meant for another host.

    A page of any web site can make its own name resolve to 127.0.0.1 and then read what the collector
    holds (DNS rebinding); it cannot make the browser send another Host than that name.

    Raises:
        RefusedError: with status 403.
    """
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or _without_port(hosts[0]).lower() not in LOOPBACK_NAMES:
        raise RefusedError(
            403, f"Host: {', '.join(hosts) or 'missing'} is not a name of this machine's loopback"
        )


def check_authorization(request: web.Request, api_key: str | None) -> None:
    """Refuse a request without a Bearer token, or with another one than `api_key` if that is set.

    Raises:
        RefusedError: with status 401; the message never holds what was sent.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or " " in token:
        raise RefusedError(401, "Authorization: Bearer <api key> required")
    if api_key is not None and token != api_key:
        raise RefusedError(401, "API key not accepted")


def check_content_type(request: web.Request) -> None:
    """Refuse a body that is not declared as JSON.

    The documented header for the endpoint; and for `/_dev`, what keeps web pages of other origins
    from posting to it, because they may send this type only if the collector agreed, which it never does.

    Raises:
        RefusedError: with status 415.
    """
    if request.content_type != "application/json":
        raise RefusedError(415, f"Content-Type: application/json required, got {request.content_type}")


def _without_port(host: str) -> str:
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return name if not port or (port[0] == ":" and port[1:].isdecimal()) else ""
    name, _, _ = host.partition(":")
    return name
