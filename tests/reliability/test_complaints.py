"""The list of complaints about other exporters is complete: none can vanish from the tests beside this."""

import ast
import re
from pathlib import Path

import pytest

COMPLAINTS = {
    "lost at shutdown": [
        "BerriAI/litellm#14212 BerriAI/litellm#25978",
        "influxdata/influxdb-client-python#697 influxdata/influxdb-client-python#504",
        "open-telemetry/opentelemetry-python-contrib#4916",
        "pydantic/logfire#779",
    ],
    "hangs at exit, flushes that lie": [
        "langfuse/langfuse-python#1799",
        "PostHog/posthog-python#308",
        "open-telemetry/opentelemetry-python#2284 open-telemetry/opentelemetry-python#4638",
        "aio-libs/aiokafka#1101 aio-libs/aiokafka#1039",
        "launchdarkly/python-server-sdk#472 open-telemetry/opentelemetry-python#4982",
    ],
    "fork and workers": [
        "getsentry/sentry-python#6149 getsentry/sentry-python#6148",
        "PostHog/posthog-python#290 langchain-ai/langsmith-sdk#457",
        "open-telemetry/opentelemetry-python#3886",
    ],
    "event loop": [
        "langfuse/langfuse-python#1655",
        "openai/openai-agents-python#529 langchain-ai/langsmith-sdk#882",
        "BerriAI/litellm#36548",
    ],
    "memory": [
        "openlayer-ai/openlayer-python#661 langchain-ai/langsmith-sdk#2459",
        "BerriAI/litellm#25660",
    ],
    "silent loss": [
        "BerriAI/litellm#38904",
        "langchain-ai/langsmith-sdk#1630 openai/openai-agents-python#3216",
        "langfuse/langfuse#15374",
    ],
    "duplicates and retries": [
        "open-telemetry/opentelemetry-collector#11056 open-telemetry/opentelemetry-python#4803",
        "wandb/weave#4395",
        "Azure/azure-sdk-for-python#47002",
    ],
    "payloads": [
        "DataDog/dd-trace-py#10212 DataDog/dd-trace-py#12692 openai/openai-agents-python#4983",
    ],
    "secrets": [
        "openai/openai-python#1196",
    ],
}
BESIDES = [
    (
        "open-telemetry/opentelemetry-python#4688 open-telemetry/opentelemetry-python#4585 "
        "open-telemetry/opentelemetry-python#2701 open-telemetry/opentelemetry-python#4323"
    ),
    "open-telemetry/opentelemetry-python#4752",
    "langfuse/langfuse#3292 BerriAI/litellm#9337 langchain-ai/langsmith-sdk#611 wandb/weave#4965",
    "BerriAI/litellm#13970",
    "langfuse/langfuse#1631",
    "tinyhumansai/openhuman#4675",
    "openai/openai-agents-python#4684",
    "aio-libs/aiokafka#759",
]
LISTED = [complaint for part in COMPLAINTS.values() for complaint in part] + BESIDES
REFERENCES = {reference for complaint in LISTED for reference in complaint.split()}

_REFERENCE = re.compile(r"[\w-]+/[\w.-]+#\d+")


def docstrings() -> dict[str, str]:
    """Return the docstring of each test beside this file, by its module and name."""
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("test_complaints_*.py")):
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test_"):
                    found[f"{path.stem}::{name}"] = " ".join((ast.get_docstring(node) or "").split())
                case _:
                    pass
    return found


def test_there_are_twenty_five_complaints() -> None:
    assert sum(len(part) for part in COMPLAINTS.values()) == 25


@pytest.mark.parametrize("complaint", LISTED)
def test_a_test_stands_for_every_complaint(complaint: str) -> None:
    named = [_REFERENCE.findall(text) for text in docstrings().values()]
    for reference in complaint.split():
        assert any(reference in names for names in named), reference


def test_every_test_says_which_complaint_it_stands_for() -> None:
    for name, text in docstrings().items():
        references = _REFERENCE.findall(text)
        assert references, name
        assert set(references) <= REFERENCES, name
        assert len(_REFERENCE.split(text)[0].split()) > 5, name  # and says it in words
