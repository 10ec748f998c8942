"""OpenTelemetry's SDK over OTLP/HTTP: a span or a log record for each event, its batch processors."""

import time

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from benchmarks.data import Event
from benchmarks.peers.contestant import Options
from benchmarks.peers.threaded import PATIENCE, Threaded, flat


class OtelSpans(Threaded):
    """Attributes are the event's fields, what is nested as JSON text."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        exporter = OTLPSpanExporter(endpoint=f"{options.url}/v1/traces")
        self._provider = TracerProvider()
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=options.queue))
        self._tracer = self._provider.get_tracer("bench")

    def push(self, event: Event) -> None:
        self._tracer.start_span(event["event_name"], attributes=flat(event)).end()

    def flush(self) -> None:
        self._provider.force_flush(int(PATIENCE * 1e3))


class OtelLogs(Threaded):
    """The body is the event as it is."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        exporter = OTLPLogExporter(endpoint=f"{options.url}/v1/logs")
        self._provider = LoggerProvider()
        self._provider.add_log_record_processor(
            BatchLogRecordProcessor(exporter, max_queue_size=options.queue)
        )
        self._logger = self._provider.get_logger("bench")

    def push(self, event: Event) -> None:
        self._logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                severity_number=SeverityNumber.INFO,
                body=event,
                event_name=event["event_name"],
            )
        )

    def flush(self) -> None:
        self._provider.force_flush(int(PATIENCE * 1e3))
