"""The settings as keyword arguments, for editors and type checkers; `config` checks and explains them."""

from collections.abc import Callable
from typing import Any, Literal, TypedDict

from honeyhive_batcher.secret import Secret


class Settings(TypedDict, total=False):
    """Every setting of `Batcher`. Names, types, defaults and units: see `honeyhive_batcher.config`."""

    api_key: str | Secret | None
    base_url: str
    verify_tls: bool
    request_timeout: float
    max_in_flight: int
    compression: Literal["none", "gzip", "zstd"]
    test_mode: bool
    max_queue_events: int
    max_queue_bytes: int
    overflow: Literal["drop_newest", "drop_oldest"]
    max_batch_events: int
    max_batch_bytes: int
    max_event_bytes: int
    flush_interval: float
    max_retries: int
    max_elapsed: float
    backoff_base: float
    backoff_max: float
    on_ambiguous: Literal["retry", "drop"]
    project: str | None
    source: str | None
    event_name: str | None
    session_name: str | None
    capture_content: bool
    sample_rate: float
    shutdown_timeout: float


class Options(Settings, total=False):
    """All that `Batcher` takes: the settings, and the callbacks, which `honeyhive_batcher.hooks` explains."""

    before_send: Callable[[Any], Any] | None
    before_session: Callable[[dict[str, Any]], Any] | None
    cost: Callable[[dict[str, Any]], float | None] | None
    on_delivered: Callable[[tuple[str, ...]], object] | None
    on_dropped: Callable[[tuple[str, ...], str], object] | None
    on_unconfirmed: Callable[[tuple[str, ...]], object] | None
