"""Frozen, self-validating settings, their units, defaults and environment names."""

import logging
import math
import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from honeyhive_batcher.address import checked_address, is_loopback, shown
from honeyhive_batcher.errors import ConfigError
from honeyhive_batcher.secret import Secret, seal

logger = logging.getLogger("honeyhive_batcher")

MiB = 1024 * 1024
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0)]
SomeSeconds: TypeAlias = Annotated[float, Meta(gt=0)]

Codec: TypeAlias = Literal["gzip", "zstd"]

PartT = TypeVar("PartT", bound="_Part")


class _Part(Struct, frozen=True, kw_only=True):
    """Checks every field against its annotation when made, and names field and value if one is wrong."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            if name == "api_key":
                continue  # checked where it is sealed
            try:
                checked = msgspec.convert(value, hint)
            except msgspec.ValidationError as error:
                text = shown(value) if name == "base_url" else f"{name}={value!r}"
                raise ConfigError(f"{text} is not valid: {error}") from None
            if isinstance(checked, float) and not math.isfinite(checked):
                raise ConfigError(f"{name}={value!r} is not valid: Expected a finite number")
            msgspec.structs.force_setattr(self, name, checked)


class EndpointSettings(_Part, frozen=True, kw_only=True):
    """Where to send, as whom, and how long to wait for an answer."""

    api_key: str | Secret | None = None
    """Project key or ingestion key, sent as a Bearer token."""
    base_url: str = "https://api.honeyhive.ai"
    """Scheme, host and optional path prefix of the HoneyHive deployment."""
    verify_tls: bool = True
    """Whether the server's certificate is verified."""
    request_timeout: SomeSeconds = 30.0
    """Seconds for one request, from connecting to the end of the answer."""
    max_in_flight: Count = 16
    """Most requests at once; concurrency adapts below it."""
    compression: Literal["none", "gzip", "zstd"] = "none"
    """How bodies are compressed, in a thread; plain again when the server will not have them so. "zstd" needs
    CPython 3.14 or the package `zstandard`."""
    test_mode: bool = False
    """No network: every batch counts as delivered and goes nowhere."""

    def __post_init__(self) -> None:
        if self.api_key is not None and not isinstance(self.api_key, Secret):
            msgspec.structs.force_setattr(self, "api_key", Secret(self.api_key))
        super().__post_init__()
        msgspec.structs.force_setattr(self, "base_url", checked_address(self.base_url))
        if self.compression == "zstd" and not _has_zstd():
            raise ConfigError("compression='zstd' needs a package: pip install 'honeyhive-batcher[zstd]'")
        if isinstance(self.api_key, Secret):
            if not self.api_key.is_sendable:
                raise ConfigError("api_key is not valid: Expected visible ASCII characters without spaces")
        elif not self.test_mode:
            raise ConfigError(
                "api_key is missing: pass api_key=..., or use Batcher.from_env() "
                "with HH_INGESTION_API_KEY or HH_API_KEY set"
            )


def _has_zstd() -> bool:
    if sys.version_info >= (3, 14):
        return True
    try:
        import zstandard  # noqa: F401, PLC0415 - an extra, and asked for
    except ImportError:
        return False
    return True


class QueueLimits(_Part, frozen=True, kw_only=True):
    """How much may be held, over everything not yet settled: queued, in flight and backing off."""

    max_queue_events: Count = 10_000
    """Most events held."""
    max_queue_bytes: Count = 64 * MiB
    """Most bytes of encoded events held."""
    overflow: Literal["drop_newest", "drop_oldest"] = "drop_newest"
    """Which event loses when the queue is full: the one being pushed, or the oldest one queued."""


class BatchLimits(_Part, frozen=True, kw_only=True):
    """When a group is ripe, and how large a batch may be."""

    max_batch_events: Count = 100
    """Most events in a request."""
    max_batch_bytes: Annotated[int, Meta(ge=1024)] = 4 * MiB
    """Most bytes in a request body. HoneyHive documents a ceiling of 5 MB."""
    max_event_bytes: Count = 4 * MiB
    """Most bytes in one encoded event; it also has to fit into a request body."""
    flush_interval: Seconds = 1.0
    """Longest an event waits for others to share its request, in seconds."""


class RetryLimits(_Part, frozen=True, kw_only=True):
    """How long to keep trying, and what to do when nobody knows whether a batch arrived."""

    max_retries: Annotated[int, Meta(ge=0)] = 5
    """Most retries of a batch. In an outage only those count that may have arrived: 500, time-outs."""
    max_elapsed: Seconds = 120.0
    """Seconds after its first attempt in which a batch may be tried again. They stand still in an outage."""
    backoff_base: Seconds = 0.5
    """Upper end of the first back-off of a batch in seconds; each further one doubles it."""
    backoff_max: Seconds = 30.0
    """Longest back-off, in seconds."""
    on_ambiguous: Literal["retry", "drop"] = "retry"
    """When a request may have arrived: send it again (at least once), or never again (at most once)."""


class Defaults(_Part, frozen=True, kw_only=True):
    """What is filled into events and sessions that leave it out."""

    project: str | None = None
    """`project` of events without one."""
    source: str | None = None
    """`source` of events and sessions without one."""
    event_name: str | None = None
    """`event_name` of events without one."""
    session_name: str | None = None
    """`session_name` of sessions without one."""


class Recording(_Part, frozen=True, kw_only=True):
    """What of a program's calls may leave the process."""

    capture_content: bool = True
    """Whether messages, answers and other content are sent; else only their sizes, counts, roles and ends."""
    sample_rate: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the sessions that is sent, whole, from 0 to 1; of events without a session, of the events."""


class Shutdown(_Part, frozen=True, kw_only=True):
    """How the batcher ends."""

    shutdown_timeout: Seconds = 5.0
    """Seconds that closing may take before what is left is given up."""


class Config(Struct, frozen=True, kw_only=True):
    """All settings, by what they are about.

    Raises:
        ConfigError: A setting is unknown, missing or wrong; the message names it and its value.
    """

    endpoint: EndpointSettings
    queue: QueueLimits
    batch: BatchLimits
    retry: RetryLimits
    defaults: Defaults
    recording: Recording
    shutdown: Shutdown

    def __post_init__(self) -> None:
        _warn_of_eavesdroppers(self.endpoint)

    @classmethod
    def of(cls, **settings: Any) -> "Config":
        """Make a config from flat settings, as `Batcher` takes them."""
        seal(settings)
        unknown = sorted(settings.keys() - SETTINGS.keys())
        if unknown:
            raise ConfigError(f"unknown setting {unknown[0]!r}; the settings are {', '.join(SETTINGS)}")
        return cls(
            endpoint=_part(EndpointSettings, settings),
            queue=_part(QueueLimits, settings),
            batch=_part(BatchLimits, settings),
            retry=_part(RetryLimits, settings),
            defaults=_part(Defaults, settings),
            recording=_part(Recording, settings),
            shutdown=_part(Shutdown, settings),
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **settings: Any) -> "Config":
        """Make a config from the environment; a setting given here wins over its variable.

        A blank value counts as unset. A value that is not valid is warned about once and the default
        is used, except where no default is safe: a malformed key or address raises `ConfigError`.
        """
        seal(settings)
        settings = _read_environment(os.environ if environ is None else environ, settings) | settings
        del environ  # lest it be shown, with the key in it, among the variables of a traceback
        return cls.of(**settings)


def _part(kind: type[PartT], settings: Mapping[str, Any]) -> PartT:
    return kind(**{name: settings[name] for name in kind.__struct_fields__ if name in settings})


SETTINGS: dict[str, type[_Part]] = {
    name: kind
    for kind in (EndpointSettings, QueueLimits, BatchLimits, RetryLimits, Defaults, Recording, Shutdown)
    for name in kind.__struct_fields__
}
"""Every setting and the part it belongs to."""

_HONEYHIVE_NAMES: dict[str, tuple[str, ...]] = {
    "api_key": ("HH_INGESTION_API_KEY", "HH_API_KEY"),  # the ingestion key wins for event writes
    "base_url": ("HH_API_URL",),
    "project": ("HH_PROJECT",),
    "source": ("HH_SOURCE",),
    "session_name": ("HH_SESSION_NAME",),
    "max_batch_events": ("HH_BATCH_SIZE",),
    "flush_interval": ("HH_FLUSH_INTERVAL",),
    "max_retries": ("HH_MAX_RETRIES",),
    "request_timeout": ("HH_API_TIMEOUT",),
    "verify_tls": ("HH_VERIFY_SSL",),
    "test_mode": ("HH_TEST_MODE",),
}

ENVIRONMENT: dict[str, tuple[str, ...]] = {
    setting: _HONEYHIVE_NAMES.get(setting, (f"HH_BATCHER_{setting.upper()}",)) for setting in SETTINGS
}
"""The environment names of every setting, the one that wins first. HoneyHive's own wherever one exists."""


def _read_environment(environ: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for setting, names in ENVIRONMENT.items():
        for name in names:
            text = environ.get(name, "").strip()
            if text and setting not in given and setting not in found:
                value = _from_text(setting, name, text)
                if value is not None:
                    found[setting] = value
    seal(found)
    return found


def _from_text(setting: str, name: str, text: str) -> object:
    """Return the value that `text` stands for, or None after a warning if it stands for none."""
    if setting in {"api_key", "base_url"}:
        return text  # no default is safe in their place: the events would go elsewhere, or nowhere
    kind = SETTINGS[setting]
    hint = get_type_hints(kind, include_extras=True)[setting]
    try:
        value = msgspec.convert(text.lower() if hint is bool else text, hint, strict=False)
        kind(**{setting: value, **({"api_key": "unused"} if kind is EndpointSettings else {})})
    except (msgspec.ValidationError, ConfigError) as error:
        if setting == "capture_content":  # nor in its place: the content would leave after all
            raise ConfigError(f"{name}={text!r} is not valid: Expected true or false") from None
        default = msgspec.structs.fields(kind)[kind.__struct_fields__.index(setting)].default
        fields = {"kind": "setting_not_valid", "setting": setting}
        logger.warning("%s=%r is not valid (%s); using %r", name, text, error, default, extra=fields)
        return None
    return value


def _warn_of_eavesdroppers(endpoint: EndpointSettings) -> None:
    """Say what a setting gives away to whoever is on the way. Within this machine nobody is."""
    if endpoint.test_mode or is_loopback(endpoint.base_url):
        return
    address = urlsplit(endpoint.base_url)
    host = address.hostname
    if endpoint.base_url.lower().startswith("http:"):
        text = "base_url is plain http: the API key and all events travel unencrypted to %s"
        logger.warning(
            text, host, extra={"kind": "not_encrypted", "host": address.netloc, "setting": "base_url"}
        )
    elif not endpoint.verify_tls:
        text = "verify_tls is off: whoever poses as %s gets the API key and all events"
        logger.warning(
            text, host, extra={"kind": "not_verified", "host": address.netloc, "setting": "verify_tls"}
        )
