"""The only HTTP client: sends one request and returns a reply. It reports and never retries.

aiohttp is imported when a run opens its transport, not before: the import takes longer than all
others together.
"""

import contextlib
import math
import os
import ssl
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Protocol, final
from urllib.parse import unquote, urlsplit

import msgspec

from honeyhive_batcher.config import EndpointSettings
from honeyhive_batcher.core import wire
from honeyhive_batcher.core.model import Failure, Reply, Response
from honeyhive_batcher.core.request import Request
from honeyhive_batcher.runtime.compression import Compression
from honeyhive_batcher.runtime.sockets import Sockets
from honeyhive_batcher.secret import Secret
from honeyhive_batcher.version import __version__

if TYPE_CHECKING:
    import aiohttp

_CONNECT_TIMEOUT = 10.0
"""Seconds for name, connection and TLS. Below the request's own time-out, so that running out of it
tells that nothing was sent."""
_KEEPALIVE = 4.0
"""Seconds that an idle connection is kept: less than the five after which Node, which serves HoneyHive,
and uvicorn close theirs, so that a request rarely meets a connection that is being closed."""


class Transport(Protocol):
    """What the worker sends with."""

    async def open(self) -> None:
        """Get ready, in the event loop in which requests will be sent."""

    async def send(self, request: Request) -> Reply:
        """Send one request. Raises nothing but a cancellation."""

    async def close(self) -> None:
        """Let go of all connections."""

    def abandon(self) -> None:
        """Let go of all connections when the event loop is closed, in which nothing can be awaited."""
        return


@final
class AiohttpTransport:
    """Sends over one pooled aiohttp session.

    Certificates are verified, the proxy variables of the environment honoured, redirects not followed
    (a 307 would post the body to another origin), and no more of an answer is read than can matter.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        self._compression = None if settings.compression == "none" else Compression(settings.compression)
        self._session: aiohttp.ClientSession | None = None
        self._headers: dict[str, str] = {}
        self._sockets = Sockets(settings.request_timeout)
        self._proxy: str | None = None
        self._proxy_headers: dict[str, str] | None = None

    async def open(self) -> None:
        """Make the session, in the running event loop."""
        import concurrent.futures.thread  # noqa: F401, PLC0415 - else the first name to resolve imports it

        import aiohttp  # noqa: PLC0415 - see the module's docstring

        import honeyhive_batcher.runtime.sliced  # noqa: F401, PLC0415 - now, and not when the first is sent

        settings = self._settings
        assert isinstance(settings.api_key, Secret)
        timeout = settings.request_timeout
        connect_timeout = min(_CONNECT_TIMEOUT, timeout / 2)
        # Given with every request, not with the session: those of the session go to a proxy as well, the
        # key in clear.
        self._headers = {
            "Authorization": f"Bearer {settings.api_key.reveal()}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # nothing to unpack, so no bomb either
            "User-Agent": f"honeyhive-batcher/{__version__}",
        }
        self._proxy, login = _environment_proxy(settings.base_url)
        if login is not None:
            # A proxy for https gets it with CONNECT, one for http with the request itself.
            is_tunnel = settings.base_url.startswith("https:")
            self._proxy_headers = {"Proxy-Authorization": login} if is_tunnel else None
            self._headers |= {} if is_tunnel else {"Proxy-Authorization": login}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=settings.max_in_flight,
                keepalive_timeout=_KEEPALIVE,
                ssl=settings.verify_tls,
                socket_factory=self._sockets,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # `connect` bounds all of it, the name and a proxy's part included, which `sock_connect` does not.
            # Without the threshold, aiohttp rounds 5 s and more up to a whole second of the clock.
            timeout=aiohttp.ClientTimeout(total=timeout, connect=connect_timeout, ceil_threshold=math.inf),
            auto_decompress=False,
            # Not `trust_env`: it reads ~/.netrc for every request, in a thread, and raises for every one
            # if the host has an entry there.
        )

    async def send(self, request: Request) -> Reply:
        """Send one request and return the answer, or what kept it from coming."""
        import aiohttp  # noqa: PLC0415 - see the module's docstring

        from honeyhive_batcher.runtime.sliced import SLICE, SlicedBody  # noqa: PLC0415 - needs aiohttp

        assert self._session is not None
        url = self._settings.base_url + request.path
        headers = self._headers
        compressed = None
        if self._compression is not None and not request.plain:
            compressed = await self._compression.of(request)
        if compressed is not None and self._compression is not None:
            request = msgspec.structs.replace(request, opening=b"", parts=(compressed,), ending=b"")
            headers = {**headers, "Content-Encoding": self._compression.codec}
        body = request.body if request.size <= SLICE else SlicedBody(request)
        try:
            async with self._session.request(
                request.method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy,
                proxy_headers=self._proxy_headers,
            ) as answer:
                try:
                    answer_body = await _read(answer.content, request.max_reply_bytes)
                except (aiohttp.ClientError, TimeoutError, OSError):
                    answer_body = b""  # the status stands; what the body would have said is unknown
                return Response(
                    status=answer.status,
                    body=answer_body,
                    retry_after=wire.retry_after(answer.headers.get("Retry-After"), wall=time.time()),
                    compressed=compressed is not None,
                )
        # Only a connection that never stood is surely unsent: after that, aiohttp reports "sent" the
        # moment the bytes are in its own buffer. Messages are our own words: those of aiohttp may hold
        # the key (the `repr` of a response error does).
        except aiohttp.ClientConnectorCertificateError:
            return Failure(cause="the server's certificate is not trusted", unsent=True)
        except aiohttp.ClientConnectorDNSError:
            return Failure(cause="the host name cannot be resolved", unsent=True)
        except aiohttp.ClientConnectorSSLError:
            return Failure(cause="TLS failed", unsent=True)
        except aiohttp.ClientConnectorError as error:
            code = error.os_error.errno
            reason = os.strerror(code) if code else "at several addresses"
            return Failure(cause=f"cannot connect ({reason})", unsent=True)
        except aiohttp.ClientHttpProxyError as error:  # the proxy has not let us through to the server
            if error.status == 407:
                return Response(status=407)
            return Failure(cause=f"the proxy answered HTTP {error.status}", unsent=True)
        except aiohttp.ConnectionTimeoutError:
            return Failure(cause="connecting timed out", unsent=True)
        except TimeoutError:
            return Failure(cause="the request timed out", unsent=False)
        except (aiohttp.ClientError, OSError, ssl.SSLError) as error:
            return Failure(cause=f"the connection broke ({type(error).__name__})", unsent=False)
        except Exception as error:  # aiohttp is a large package, and one error of it must not end the worker
            return Failure(cause=f"the request failed ({type(error).__name__})", unsent=False)

    async def close(self) -> None:
        """Close the session and its connections."""
        if self._compression is not None:
            self._compression.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await self._sockets.shut_down()

    def abandon(self) -> None:
        """Mark the session as closed, lest aiohttp complains about it. The sockets go with the last that
        holds them.
        """
        closing = self.close()
        with contextlib.suppress(StopIteration):
            closing.send(None)  # with a closed loop there is nothing to wait for
        closing.close()


def _environment_proxy(url: str) -> tuple[str | None, str | None]:
    """Return the proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name for `url`, and the header that
    logs in to it.
    """
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - slow to import, like aiohttp

    target = urlsplit(url)
    found = getproxies().get(target.scheme)
    if not found or proxy_bypass(target.hostname or ""):
        return None, None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    login, at, address = proxy.netloc.rpartition("@")
    basic = f"Basic {b64encode(unquote(login).encode()).decode()}" if at else None
    return f"{proxy.scheme}://{address}", basic


async def _read(content: "aiohttp.StreamReader", max_bytes: int) -> bytes:
    """Read a body up to `max_bytes`; the connection is closed, not drained, when there is more."""
    parts: list[bytes] = []
    size = 0
    while size < max_bytes:
        part = await content.read(max_bytes - size)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


@final
class Nowhere:
    """Sends nothing, and says that all of it arrived: `test_mode`."""

    async def open(self) -> None:
        """Open nothing."""

    async def send(self, request: Request) -> Reply:  # noqa: ARG002 - nothing of it is looked at
        """Return a success."""
        return Response(status=200)

    async def close(self) -> None:
        """Close nothing."""

    def abandon(self) -> None:
        """Let go of nothing."""
