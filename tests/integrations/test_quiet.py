"""Our own requests in a program that traces its requests with OpenTelemetry."""

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from opentelemetry import context, trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from honeyhive_batcher import Batcher
from honeyhive_batcher.runtime.quiet import quiet_context
from tests.integration.raw_server import RawServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    AioHttpClientInstrumentor().instrument(tracer_provider=provider)
    yield exporter
    AioHttpClientInstrumentor().uninstrument()
    provider.shutdown()


async def test_our_requests_are_not_traced_and_carry_no_traceparent(spans: InMemorySpanExporter) -> None:
    async with RawServer() as server:
        with trace.use_span(TracerProvider().get_tracer("host").start_span("GET /ask")):
            async with Batcher(base_url=server.url, api_key="hh_test") as batcher:
                batcher.push({"event_type": "model", "model": "good"})
                assert (await batcher.flush()).ok
                async with aiohttp.ClientSession() as session:  # the host's own
                    body = {"model_events": [{"event_id": "of the host"}]}
                    async with session.post(server.url, json=body) as answer:
                        await answer.read()
    ours, of_the_host = (head.lower() for head in server.heads)
    assert b"honeyhive-batcher" in ours
    assert b"traceparent" not in ours
    assert b"traceparent" in of_the_host
    (span,) = spans.get_finished_spans()
    assert span.name == "POST"


async def test_the_hosts_context_stays_as_it_was(spans: InMemorySpanExporter) -> None:
    before = context.get_current()
    async with RawServer() as server, Batcher(base_url=server.url, api_key="hh_test"):
        assert context.get_current() is before


@pytest.mark.parametrize("api", [SimpleNamespace(), SimpleNamespace(set_value=None), 7])
def test_another_api_than_we_know_hurts_nobody(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.context", api)
    assert list(quiet_context()) == []


def test_opentelemetry_is_not_imported_for_it() -> None:
    program = (
        "import asyncio, sys\n"
        "from honeyhive_batcher import Batcher\n"
        "async def main():\n"
        "    async with Batcher(test_mode=True) as batcher:\n"
        "        batcher.push({'model': 'good'})\n"
        "asyncio.run(main())\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
