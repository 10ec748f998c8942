"""Sentry's SDK: a log line for each event. Its queue has no setting, and drops without a word."""

import sentry_sdk
from sentry_sdk import logger

from benchmarks.data import Event
from benchmarks.peers.contestant import Options
from benchmarks.peers.threaded import PATIENCE, Threaded, flat


class SentryLogs(Threaded):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        host = options.url.removeprefix("http://")
        sentry_sdk.init(dsn=f"http://bench@{host}/1", enable_logs=True, default_integrations=False)

    def push(self, event: Event) -> None:
        logger.info("an event", attributes=flat(event))

    def flush(self) -> None:
        sentry_sdk.flush(timeout=PATIENCE)
