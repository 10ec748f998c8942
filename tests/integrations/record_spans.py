"""Records the spans of the real instrumentations: `python -m tests.integrations.record_spans`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from honeyhive_batcher.testing import Collector, collector_in_thread
from tests.integrations.fake_provider import provider_in_thread

ROOT = Path(__file__).parent.parent.parent
RECORDED = ROOT / "tests" / "data" / "spans"
FAMILIES = ("genai", "traceloop", "openinference", "pydantic_ai")


def run(family: str, hive: Collector) -> list[dict[str, Any]]:
    """Run a family's program with its events sent to `hive`, and return its spans."""
    with provider_in_thread() as provider:
        done = subprocess.run(
            [sys.executable, "-m", "tests.integrations.span_program", family, provider.url],
            cwd=ROOT,
            env={
                **{
                    name: value for name, value in os.environ.items() if not name.startswith(("HH_", "OTEL_"))
                },
                "HH_API_URL": hive.url,
                "HH_API_KEY": "hh_test",
                # Without these, no message is in a span of OpenTelemetry's own instrumentation.
                "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    spans: list[dict[str, Any]] = json.loads(done.stdout)
    return spans


if __name__ == "__main__":
    RECORDED.mkdir(exist_ok=True)
    with collector_in_thread() as hive:
        for family in FAMILIES:
            (RECORDED / f"{family}.json").write_text(json.dumps(run(family, hive), indent=1) + "\n")
