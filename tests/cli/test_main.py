"""`honeyhive-batcher` without a command that runs: help, wrong options, Ctrl-C."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from honeyhive_batcher import cli


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys; from honeyhive_batcher.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'aiohttp', 'rich', 'honeyhive_batcher.collector'} & set(sys.modules), 'slow'\n"
    )
    for arguments in (["--help"], ["send", "--help"], ["demo", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=20
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_where_no_command_catches_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.send, "run", interrupted)
    assert cli.main(["send", "-"]) == 130
    assert capsys.readouterr().err == "honeyhive-batcher: stopped\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["send", "-", "--wait=0"], "argument --wait: '0' is not a number of seconds above 0"),
        (["send", "-", "--wait=nan"], "argument --wait: 'nan' is not a number of seconds above 0"),
        (["send", "-", "--wait=x"], "argument --wait: 'x' is not a number of seconds above 0"),
        (["send", "-", "--skip=-1"], "argument --skip: '-1' is not a number of lines or events"),
        (["send", "-", "--skip=x"], "argument --skip: 'x' is not a number of lines or events"),
        (["demo", "--seconds=0"], "argument --seconds: '0' is not a number of seconds above 0, up to 3600"),
        (["demo", "--seconds=x"], "argument --seconds: 'x' is not a number of seconds above 0, up to 3600"),
        (["demo", "--fail=often"], "argument --fail: 'often' is not STATUS:PROBABILITY, for example 429:0.2"),
        (["demo", "--port=80"], "unrecognized arguments: --port=80"),
    ],
)
def test_a_wrong_option_is_named(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(arguments)
    assert exited.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["send", "missing.jsonl"], "cannot read missing.jsonl: No such file or directory"),
        (["send", "."], "cannot read .: Is a directory"),
        (["send", "-"], "there is no API key: set HH_API_KEY, or pass --api-key"),
        (
            ["send", "-", "--api-key", "a b"],
            "api_key is not valid: Expected visible ASCII characters without spaces",
        ),
        (
            ["send", "-", "--api-key", "k", "--base-url", "ftp://x"],
            "base_url='ftp://x' is not valid: Expected http:// or https:// and a host",
        ),
        (
            ["send", "-", "--api-key", "k", "--batch-size", "0"],
            "max_batch_events=0 is not valid: Expected `int` >= 1",
        ),
        (["demo", "--partial", "2"], "partial: 2.0 is not a number from 0 to 1"),
        (
            ["demo", "--db", "no/such/folder.db"],
            "db: cannot use 'no/such/folder.db': unable to open database file",
        ),
    ],
)
def test_a_wrong_setting_is_one_clear_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("HH_")]:
        monkeypatch.delenv(name)
    assert cli.main(arguments) == 2
    assert capsys.readouterr() == ("", f"honeyhive-batcher {arguments[0]}: {sentence}\n")
    assert list(tmp_path.iterdir()) == []
