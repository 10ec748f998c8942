"""The address to send to: what may stand in it, and how much of a wrong one may be shown."""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from honeyhive_batcher.errors import ConfigError

_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")


def checked_address(url: str) -> str:
    """Return `url` without its last slash.

    Raises:
        ConfigError: It is no http or https URL of a host, or it holds more than that, a port and a path.
    """
    complaint = _complaint(url)
    if complaint is not None:
        raise ConfigError(f"{shown(url)} is not valid: {complaint}")
    return url.rstrip("/")


def shown(url: object) -> str:
    """Return setting and value for a message; no value in which a password or a key may stand."""
    is_harmless = isinstance(url, str) and not re.search(r"[@?#]|%40|hh_", url)
    return f"base_url={url!r}" if is_harmless else "base_url"


def is_loopback(url: str) -> bool:
    """Return whether what is sent to a checked address stays in this machine."""
    host = urlsplit(url).hostname or ""
    if host.rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _complaint(url: str) -> str | None:
    if not re.fullmatch(r"[\x21-\x7e]+", url):  # first: `urlsplit` takes line breaks out without a word
        return "Expected visible ASCII characters without spaces"
    try:
        parts = urlsplit(url)
        port = parts.port
        if parts.netloc.startswith("["):
            ipaddress.IPv6Address(parts.hostname or "")
    except ValueError:
        return "it is not a URL"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "Expected http:// or https:// and a host"
    if "@" in parts.netloc:
        return "it holds a user name or a password"
    if "?" in url or "#" in url:  # also an empty one: what is appended to the address would be part of it
        return "Expected no query and no fragment"
    if not _is_host(parts.netloc, parts.hostname) or "\\" in url:
        return "Expected a host name or an IP address"
    if port == 0 or parts.netloc.endswith(":"):
        return "Expected a port from 1 to 65535"
    return None


def _is_host(netloc: str, host: str) -> bool:
    if netloc.startswith("["):
        return re.fullmatch(r"\[[^\]]*\](:\d*)?", netloc) is not None
    return len(host) <= 253 and _NAME.fullmatch(host) is not None
