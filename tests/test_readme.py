"""Every program, command and fact in the README is tried as it stands."""

import ast
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import msgspec
import pytest

from honeyhive_batcher import BlockingBatcher, Statistics, config
from honeyhive_batcher.testing import Collector, StoredEvent, collector_in_thread
from tests.integrations.fake_provider import provider_in_thread

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROGRAMS = dict(
    zip(
        (
            "script",
            "fastapi",
            "aiohttp",
            "openai",
            "anthropic",
            "langchain",
            "litellm",
            "opentelemetry",
            "call",
            "cost",
            "metrics",
            "callbacks",
            "privacy",
            "capture",
            "fixture",
        ),
        # The recipes have tests of their own, in tests/frameworks.
        re.findall(
            r"```python\n(.*?)```",
            re.sub(r"<!-- recipes:.*<!-- end of recipes", "", README, flags=re.DOTALL),
            re.DOTALL,
        ),
        strict=True,
    )
)


def settings_table() -> str:
    """Return the table of settings that follows from the code."""
    meanings = _attribute_docstrings(Path(config.__file__).read_text())
    rows = ["| setting | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for name, part in config.SETTINGS.items():
        default = {field.name: field.default for field in msgspec.structs.fields(part)}[name]
        shown = '""' if default == "" else "" if default is None else f"`{_shown(default)}`"
        variables = " or ".join(f"`{variable}`" for variable in config.ENVIRONMENT[name])
        rows.append(f"| `{name}` | {variables} | {shown} | {meanings[name]} |")
    return "\n".join(rows)


def _shown(default: object) -> str:
    if isinstance(default, int) and default >= config.MiB and default % config.MiB == 0:
        return f"{default // config.MiB} MiB"
    return f'"{default}"' if isinstance(default, str) else str(default)


def _attribute_docstrings(source: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for field, text in zip(node.body, node.body[1:], strict=False):
                match field, text:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(meaning))),
                    ):
                        found[name] = " ".join(meaning.split())
                    case _:
                        pass
    return found


def _environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HH_")}
    return kept | variables


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def events_of(program: str, folder: Path) -> list[StoredEvent]:
    """Run a program that says nothing and ends by itself; return what it has delivered."""
    (folder / "program.py").write_text(PROGRAMS[program])
    with collector_in_thread() as hive:
        done = subprocess.run(
            [sys.executable, "-W", "error", "program.py"],
            cwd=folder,
            env=_environment(HH_API_URL=hive.url, HH_API_KEY="hh_test"),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return list(hive.events())


def test_the_table_of_settings_is_what_the_code_says() -> None:
    assert settings_table() in README


def test_the_complete_program_delivers_its_event_and_ends_by_itself(tmp_path: Path) -> None:
    (stored,) = events_of("script", tmp_path)
    assert stored.event["project"] == "My project"
    assert stored.event["response"] == {"role": "assistant", "content": "Honey."}


def test_the_program_with_a_price_list_says_what_its_call_has_cost(tmp_path: Path) -> None:
    (stored,) = events_of("cost", tmp_path)
    assert stored.event["cost"] == pytest.approx(1000 * 2.5e-6 + 100 * 10e-6)


def test_the_program_that_times_calls_delivers_both(tmp_path: Path) -> None:
    first, second = events_of("call", tmp_path)
    assert first.event["response"] == {"role": "assistant", "content": "Honey."}
    assert second.event["response"] == "Honey, dear"
    assert second.event["messages"] == [{"role": "user", "content": "dear"}]
    assert second.event["end_time"] == second.event["start_time"] + second.event["duration"]


def test_the_complete_program_says_in_one_sentence_that_the_key_is_missing(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAMS["script"])
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "HH_API_KEY" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("fastapi", ["-m", "uvicorn", "program:app", "--timeout-graceful-shutdown", "5", "--port", "{port}"]),
        ("aiohttp", ["-m", "aiohttp.web", "-H", "127.0.0.1", "-P", "{port}", "program:make_web_app"]),
    ],
)
def test_the_web_programs_deliver_what_a_request_pushed_when_they_are_stopped(
    program: str, command: list[str], tmp_path: Path
) -> None:
    # `python -m aiohttp.web` calls its function with the arguments that are left over.
    extra = "\n\ndef make_web_app(_arguments):\n    return make_app()\n" if program == "aiohttp" else ""
    (tmp_path / "program.py").write_text(PROGRAMS[program] + extra)
    port = _unused_port()
    with collector_in_thread() as hive:
        server = subprocess.Popen(
            [sys.executable, *(part.format(port=port) for part in command)],
            cwd=tmp_path,
            env=_environment(HH_API_URL=hive.url, HH_API_KEY="hh_test", PYTHONPATH=str(tmp_path)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            answer = _get(f"http://127.0.0.1:{port}/ask?question=Why")
        finally:
            server.terminate()
            output, _ = server.communicate(timeout=30)
        assert "Honey." in answer
        assert "Traceback" not in output, output
        (stored,) = hive.events()
        assert stored.event["messages"] == [{"role": "user", "content": "Why"}]
        if program == "aiohttp":
            (session,) = hive.sessions()
            assert session.session_name == "Ask"
            assert session.properties["outputs"] == {"answer": "Honey."}


def _get(url: str) -> str:
    """Ask until the server is up."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                body: bytes = answer.read()
                return body.decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize("program", ["openai", "anthropic", "langchain", "litellm", "opentelemetry"])
def test_the_programs_of_llm_clients_tell_of_their_call(program: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAMS[program])
    with collector_in_thread() as hive, provider_in_thread() as provider:
        done = subprocess.run(
            [sys.executable, "program.py"],
            cwd=tmp_path,
            env=_environment(
                HH_API_URL=hive.url,
                HH_API_KEY="hh_test",
                OPENAI_BASE_URL=f"{provider.url}/v1",
                OPENAI_API_KEY="k",
                ANTHROPIC_BASE_URL=provider.url,
                ANTHROPIC_API_KEY="k",
                LITELLM_LOCAL_MODEL_COST_MAP="True",  # else it asks GitHub for prices
            ),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (stored,) = hive.events()
    assert stored.event["project"] == "My project"
    assert stored.event["messages"] == [{"role": "user", "content": "What is in a hive?"}]
    assert stored.event["response"]["content"] == "Bees make honey in a hive."
    assert stored.event["usage"]["total_tokens"] == (26 if program == "anthropic" else 19)


def test_the_metrics_program_shows_what_it_delivered(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAMS["metrics"])
    with collector_in_thread() as hive:
        done = subprocess.run(
            [sys.executable, "-W", "error", "program.py"],
            cwd=tmp_path,
            env=_environment(HH_API_URL=hive.url, HH_API_KEY="hh_test"),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(hive.events()) == 1
    assert "\nhoneyhive_batcher_delivered_total 1.0\n" in done.stdout
    section = README.partition("## Metrics")[2].partition("\n## ")[0]
    names = re.findall(r"^# TYPE honeyhive_batcher_(\S+)", done.stdout, re.MULTILINE)
    assert len(names) == 16
    assert all(re.search(rf"`{name}[`{{]", section) for name in names), names


def test_a_health_route_shows_the_numbers_as_the_table_of_verbs_says(honeyhive_collector: Collector) -> None:
    (expression,) = re.findall(r"`/healthz` route `([^`]+)`", README)
    with BlockingBatcher(**honeyhive_collector.settings(), project="My project") as batcher:
        batcher.push({"model_name": "gpt-4o"})
        batcher.push("no event")
        batcher.flush()
        numbers = json.loads(json.dumps(eval(expression, {"msgspec": msgspec, "batcher": batcher})))
    assert (numbers["offered"], numbers["delivered"], numbers["held"]) == (2, 1, 0)
    assert numbers["refused"] == {"not_an_event": 1}
    assert numbers.keys() == {field.name for field in msgspec.structs.fields(Statistics)}


def test_the_callbacks_program_is_valid(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        PROGRAMS["callbacks"] + "\nassert redact({'metadata': {'private': True}}) is None\n"
        "assert redact({'metadata': None})['messages'][0]['content'] == '[redacted]'\n"
    )
    subprocess.run([sys.executable, "program.py"], cwd=tmp_path, timeout=30, check=True)


def test_the_privacy_program_redacts_events_and_sessions(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        PROGRAMS["privacy"] + "\nimport json\nfrom honeyhive_batcher.testing import capture\n"
        "with capture() as events:\n"
        "    batcher.push({'response': 'PROJECT-7: jo@x.org', 'inputs': {'Password': 'p'}})\n"
        "    session = batcher.session(session_id='s', inputs={'card': '4111 1111 1111 1111'})\n"
        "assert events[0]['response'] == '[redacted]: [redacted]'\n"
        "assert events[0]['inputs'] == {'Password': '[redacted]'}\n"
        "assert json.loads(session.key.properties)['inputs'] == {'card': '[redacted]'}\n"
    )
    subprocess.run([sys.executable, "program.py"], cwd=tmp_path, timeout=30, check=True)


@pytest.mark.parametrize("program", ["capture", "fixture"])
def test_the_fixture_programs_pass_under_pytest(program: str, tmp_path: Path) -> None:
    (tmp_path / "test_program.py").write_text(PROGRAMS[program])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout
