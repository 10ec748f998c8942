"""The only HTTP client: sends one request and returns a reply. It reports and never retries.

aiohttp is imported when a run opens its transport, not before: the import takes longer than all
others together.
"""

import ssl
import time
from typing import TYPE_CHECKING, Protocol, final

from honeyhive_batcher.config import EndpointSettings, Secret
from honeyhive_batcher.core import wire
from honeyhive_batcher.core.model import Failure, Reply, Request, Response
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


@final
class AiohttpTransport:
    """Sends over one pooled aiohttp session.

    Certificates are verified, the proxy variables of the environment honoured, redirects not followed
    (a 307 would post the body to another origin), and no more of an answer is read than can matter.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session, in the running event loop."""
        import aiohttp  # noqa: PLC0415 - see the module's docstring

        settings = self._settings
        assert isinstance(settings.api_key, Secret)
        timeout = settings.request_timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=settings.max_in_flight,
                keepalive_timeout=_KEEPALIVE,
                ssl=settings.verify_tls,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(_CONNECT_TIMEOUT, timeout / 2)),
            headers={
                "Authorization": f"Bearer {settings.api_key.reveal()}",
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # nothing to unpack, so no bomb either
                "User-Agent": f"honeyhive-batcher/{__version__}",
            },
            auto_decompress=False,
            trust_env=True,
        )

    async def send(self, request: Request) -> Reply:
        """Send one request and return the answer, or what kept it from coming."""
        import aiohttp  # noqa: PLC0415 - see the module's docstring

        assert self._session is not None
        url = self._settings.base_url + request.path
        try:
            async with self._session.request(
                request.method, url, data=request.body, allow_redirects=False
            ) as answer:
                try:
                    body = await _read(answer.content, request.max_reply_bytes)
                except (aiohttp.ClientError, TimeoutError, OSError):
                    body = b""  # the status stands; what the body would have said is unknown
                return Response(
                    status=answer.status,
                    body=body,
                    retry_after=wire.retry_after(answer.headers.get("Retry-After"), wall=time.time()),
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
            return Failure(
                cause=f"cannot connect ({error.os_error.strerror or 'no reason given'})", unsent=True
            )
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
        session, self._session = self._session, None
        if session is not None:
            await session.close()


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
