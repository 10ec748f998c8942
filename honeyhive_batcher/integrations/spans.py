"""A finished span's attributes, as the model event they tell of.

Knows OpenTelemetry's conventions for generative AI, as pydantic-ai and the instrumentations of OpenTelemetry
and of Traceloop write them (Traceloop's older flat keys included), and OpenInference. Works on plain values
and imports no OpenTelemetry, so that stored spans can be mapped as well.
"""

from collections.abc import Mapping
from typing import Any

from honeyhive_batcher.integrations.span_genai import genai_event
from honeyhive_batcher.integrations.span_openinference import openinference_event
from honeyhive_batcher.integrations.values import event_with, failure


def model_event(
    attributes: Mapping[str, Any],
    *,
    start_time: int | None = None,
    end_time: int | None = None,
    error: str | None = None,
) -> dict[str, Any] | None:
    """Return the event of a model call, None when the span is of something else: an agent, a tool, a chain.

    Args:
        attributes: the span's; values that a convention writes as JSON text may also be decoded already.
        start_time: Unix nanoseconds.
        end_time: Unix nanoseconds.
        error: what the status of a failed span says, "" when it says nothing; None when it did not fail.
    """
    event = openinference_event(attributes) if _is_openinference(attributes) else genai_event(attributes)
    if event is None:
        return None
    if start_time is not None and end_time is not None:
        event["start_time"] = start_time / 1e6
        event["end_time"] = end_time / 1e6
        event["duration"] = (end_time - start_time) / 1e6
    event["error"] = failure(error, attributes.get("error.type"))
    return event_with(event)


def answer_id(attributes: Mapping[str, Any], event: Mapping[str, Any]) -> str | None:
    """Return the id that the provider gave to its answer, if the span tells it."""
    found = attributes.get("gen_ai.response.id") or event.get("metadata", {}).get("response_id")
    return found if isinstance(found, str) else None


def _is_openinference(attributes: Mapping[str, Any]) -> bool:
    return "openinference.span.kind" in attributes
