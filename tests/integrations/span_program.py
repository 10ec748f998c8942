"""Makes model calls with a real instrumentation on: `python span_program.py FAMILY PROVIDER_URL`.

Prints the spans as JSON, and pushes what `HoneyHiveSpanProcessor` makes of them to the HoneyHive that the
environment names. `python -m tests.integrations.record_spans` records tests/data/spans/ with it.
"""
# ruff: noqa: PLC0415 - of the instrumentations each run imports one

import asyncio
import contextlib
import json
import sys
from typing import Any

import openai
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from honeyhive_batcher import Batcher
from honeyhive_batcher.integrations.opentelemetry import HoneyHiveSpanProcessor

MESSAGES: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is in a hive?"},
]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Looks a word up.",
            "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
        },
    }
]
_CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "hive"}'}}
AFTER_TOOL: list[Any] = [
    *MESSAGES,
    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "a home of bees"},
]


def call_openai(url: str) -> None:
    """Make the calls that every instrumentation of the OpenAI client sees."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        create = client.chat.completions.create
        create(model="good", messages=MESSAGES, temperature=0.5, max_tokens=10, seed=7)
        list(create(model="good", messages=MESSAGES, stream=True, stream_options={"include_usage": True}))
        create(model="good", messages=MESSAGES, tools=TOOLS, tool_choice="auto")
        create(model="good", messages=AFTER_TOOL, response_format={"type": "json_object"})
        with contextlib.suppress(openai.RateLimitError):
            create(model="fails-429", messages=MESSAGES[1:])
        client.completions.create(model="good", prompt="Say honey")
        client.responses.create(model="good", input="What is in a hive?", instructions="Be brief.")
        client.embeddings.create(model="good", input="honey")


async def call_pydantic_ai(url: str, tracers: TracerProvider) -> None:
    """Run an agent with a tool, twice, and once in vain."""
    from pydantic_ai import Agent, UsageLimitExceeded
    from pydantic_ai.models.instrumented import InstrumentationSettings
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.usage import UsageLimits

    Agent.instrument_all(InstrumentationSettings(tracer_provider=tracers))
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        provider = OpenAIProvider(openai_client=client)
        settings: Any = {"temperature": 0.5}
        agent = Agent(
            OpenAIChatModel("good", provider=provider), system_prompt="Be brief.", model_settings=settings
        )
        await agent.run("What is in a hive?")
        async with agent.run_stream("What is in a hive?") as run:
            await run.get_output()
        with_tool = Agent(OpenAIChatModel("good", provider=provider))

        def look_up(word: str) -> str:
            """Look a word up."""
            return f"a {word} is a home of bees"

        with_tool.tool_plain(look_up)

        with contextlib.suppress(UsageLimitExceeded):  # the provider calls the tool for ever
            await with_tool.run("What is in a hive?", usage_limits=UsageLimits(request_limit=2))
        try:
            await Agent(OpenAIChatModel("fails-429", provider=provider)).run("What is in a hive?")
        except Exception as error:
            assert "429" in str(error)  # noqa: PT017


def call(family: str, url: str, tracers: TracerProvider) -> None:
    """Make the calls of a family with its instrumentation on."""
    if family == "genai":
        from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor as GenAI

        GenAI().instrument(tracer_provider=tracers)
        call_openai(url)
    elif family == "traceloop":
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor as Traceloop

        Traceloop().instrument(tracer_provider=tracers)
        call_openai(url)
    elif family == "openinference":
        from openinference.instrumentation import using_session
        from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference

        OpenInference().instrument(tracer_provider=tracers)
        with using_session("a-session"):
            call_openai(url)
    else:
        asyncio.run(call_pydantic_ai(url, tracers))


def plain(span: Any) -> dict[str, Any]:
    """Return what is recorded of a span."""
    told = [dict(event.attributes) for event in span.events if event.name == "exception"]
    return {
        "name": span.name,
        "attributes": {k: list(v) if isinstance(v, tuple) else v for k, v in span.attributes.items()},
        "status": span.status.status_code.name,
        "description": span.status.description,
        "exceptions": [{k: v for k, v in each.items() if k != "exception.stacktrace"} for each in told],
    }


async def push_all(batcher: Batcher) -> None:
    async with batcher:
        pass


def main(family: str, url: str) -> None:
    batcher = Batcher.from_env(project="Spans")
    spans = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    tracers.add_span_processor(HoneyHiveSpanProcessor(batcher))
    call(family, url, tracers)
    asyncio.run(push_all(batcher))
    json.dump([plain(span) for span in spans.get_finished_spans()], sys.stdout, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
