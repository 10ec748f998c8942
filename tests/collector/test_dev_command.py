"""`honeyhive-batcher dev`, run as a program."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from honeyhive_batcher.cli import main

ROOT = Path(__file__).parents[2]
EVENT = {"model_name": "m", "event_id": "e"}


@contextmanager
def dev(cwd: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """Run the command in a folder; yields the program, its address, and its first four lines."""
    command = [sys.executable, "-m", "honeyhive_batcher", "dev", "--port", "0", *options]
    with subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            lines = [program.stdout.readline().rstrip("\n") for _ in range(4)]
            yield program, lines[0].partition(" at ")[2].partition(",")[0], lines
        finally:
            program.kill()


def post(url: str, body: Any) -> int:
    request = urllib.request.Request(
        f"{url}/events/model/batch",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": "Bearer hh_dev"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def end(program: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> tuple[int, list[str], str]:
    """Stop the program; return exit code, what it still printed, and its standard error."""
    program.send_signal(number)
    out, err = program.communicate(timeout=20)
    return program.returncode, out.splitlines(), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_what_comes_and_what_it_holds(tmp_path: Path, number: signal.Signals) -> None:
    with dev(tmp_path) as (program, url, lines):
        assert lines == [
            f"A local HoneyHive at {url}, Ctrl-C stops it",
            f"What it gets is kept in .honeyhive/dev.db and shown at {url}/_dev/events",
            f"export HH_API_URL={url}",
            "export HH_API_KEY=hh_dev",
        ]
        assert post(url, {"model_events": [EVENT, EVENT]}) == 200
        assert post(url, {"model_events": [{"project": "p"}]}) == 400
        code, out, err = end(program, number)
    assert (code, err) == (0, "")
    taken, refused, summary = (line.split("  ") for line in out)
    assert taken[1:5] == ["POST", "/events/model/batch", "200", "2 events"]
    assert taken[5].endswith(" B")
    assert taken[6].endswith(" ms")
    assert refused[3:5] == ["400", "0 events"]
    assert refused[-1] == "model_events[0].model: required"
    assert summary == [
        ".honeyhive/dev.db holds 2 events (1 duplicate), 0 sessions, 2 requests (1 x 200, 1 x 400)"
    ]
    assert (tmp_path / ".honeyhive" / ".gitignore").read_text() == "*\n"


def test_an_existing_folder_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / ".honeyhive").mkdir()
    with dev(tmp_path) as (program, _, _):
        code, out, _ = end(program)
    assert code == 0
    assert out == [".honeyhive/dev.db holds 0 events (0 duplicates), 0 sessions, 0 requests"]
    assert [path.name for path in (tmp_path / ".honeyhive").iterdir()] == ["dev.db"]


def test_options_reach_the_collector(tmp_path: Path) -> None:
    options = (
        *("--db", "my.db", "--api-key", "hh_mine", "--seed", "7", "--retry-after", "9", "--no-echo"),
        *("--fail", "429:0.25,503:0.125", "--fail", "500:0.5", "--partial", "0.1", "--latency", "0.01"),
        *("--latency-jitter", "0.02", "--drop-connection", "0.05", "--hang", "0.04"),
        *("--garbage", "0.03", "--fail-after-store", "0.06"),
    )
    with dev(tmp_path, *options) as (program, url, lines):
        assert lines[3] == "export HH_API_KEY=hh_mine"
        with urllib.request.urlopen(f"{url}/_dev/faults", timeout=10) as response:
            assert json.load(response) == {
                "fail": {"429": 0.25, "503": 0.125, "500": 0.5},
                "partial": 0.1,
                "latency": 0.01,
                "latency_jitter": 0.02,
                "drop_connection": 0.05,
                "fail_after_store": 0.06,
                "garbage": 0.03,
                "hang": 0.04,
                "retry_after": "9",
                "no_echo": True,
            }
        assert post(url, {"model_events": [EVENT]}) == 401
        code, out, _ = end(program)
    assert code == 0
    assert out[0].endswith("API key not accepted")
    assert (tmp_path / "my.db").exists()
    assert not (tmp_path / ".honeyhive").exists()


def test_what_a_client_sends_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with dev(tmp_path, "--fail", "429:1") as (program, url, _):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/%1b%5b2J", timeout=10)
        refused.value.close()
        assert post(url, {"model_events": [EVENT]}) == 429
        _, out, _ = end(program)
    assert out[0].endswith("not emulated by the collector: GET /?[2J")
    assert "  [fail 429]  " in out[1]


def test_a_port_in_use_is_one_clear_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["dev", "--port", str(port)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"honeyhive-batcher dev: port {port} is in use; "
        "choose another one with --port, or any free one with --port 0\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "host: '0.0.0.0' is not a loopback address"),
        (["--partial", "2"], "partial: 2.0 is not a number from 0 to 1"),
        (["--fail", "42:0.1"], "fail: 42 is not a status from 300 to 599"),
        (["--db", "no/such/folder.db"], "db: cannot use 'no/such/folder.db': unable to open database file"),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dev", "--port", "0", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"honeyhive-batcher dev: {message}")
    assert err.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_one_clear_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.honeyhive` dangles, so it neither exists nor can be made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".honeyhive").symlink_to("nowhere")
    assert main(["dev", "--port", "0"]) == 2
    assert capsys.readouterr().err.startswith("honeyhive-batcher dev: [Errno 17] File exists")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "65536"], "argument --port: '65536' is not a port from 0 to 65535"),
        (["--port", "http"], "argument --port: 'http' is not a port from 0 to 65535"),
        (["--fail", "429"], "argument --fail: '429' is not STATUS:PROBABILITY, for example 429:0.2"),
        (["--fail", "429:often"], "argument --fail: '429:often' is not STATUS:PROBABILITY"),
        (["--latency", "slow"], "argument --latency: invalid float value"),
    ],
)
def test_a_wrong_option_is_named(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["dev", *options])
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    """`honeyhive-batcher dev | head -4`"""
    with dev(tmp_path) as (program, url, _):
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        assert post(url, {"model_events": [EVENT]}) == 200
        assert program.wait(timeout=20) == 0
        assert program.stderr.read() == ""


def test_help_and_version_import_nothing_slow() -> None:
    code = (
        "import sys; from honeyhive_batcher.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'aiohttp', 'honeyhive_batcher.collector'} & set(sys.modules), 'slow'\n"
    )
    for arguments in (["--version"], ["--help"], ["dev", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=20
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "honeyhive-batcher" in done.stdout


def test_importing_the_main_module_runs_nothing() -> None:
    assert importlib.import_module("honeyhive_batcher.__main__").main is main


def test_no_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main([])
    assert exited.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
