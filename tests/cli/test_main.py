"""`honeyhive-batcher` without a command that runs: help, wrong options, Ctrl-C."""

import subprocess
import sys
from argparse import Namespace

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
