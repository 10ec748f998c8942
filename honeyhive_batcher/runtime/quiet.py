"""The context in which the batcher's own tasks run: nothing of the host's is bound in it."""

import contextlib
import contextvars
import sys
from typing import Any

_SUPPRESSING = ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY")
"""The names under which OpenTelemetry's API keeps its keys; instrumentations of before that wrote it out."""


def quiet_context() -> contextvars.Context:
    """Return an empty context in which OpenTelemetry, if the program uses it, traces nothing.

    What is bound where the batcher happens to be started (a session, a trace) does not belong to everything
    it sends. And a span and a `traceparent` for every batch would tell nobody anything.
    """
    context = contextvars.Context()
    opentelemetry = sys.modules.get("opentelemetry.context")  # not imported: who uses it has done so
    if opentelemetry is not None:
        with contextlib.suppress(Exception):  # another version of it: then the requests are traced
            context.run(_suppress, opentelemetry)
    return context


def _suppress(opentelemetry: Any) -> None:
    keys = [getattr(opentelemetry, name) for name in _SUPPRESSING if hasattr(opentelemetry, name)]
    suppressed = None
    for key in ("suppress_instrumentation", *keys):
        suppressed = opentelemetry.set_value(key, True, suppressed)
    opentelemetry.attach(suppressed)
