"""OpenTelemetry: one event for every span of a model call, whoever instrumented it.

provider.add_span_processor(HoneyHiveSpanProcessor(batcher))
"""

from honeyhive_batcher.integrations.span_processor import HoneyHiveSpanProcessor
from honeyhive_batcher.integrations.spans import model_event

__all__ = ["HoneyHiveSpanProcessor", "model_event"]
