"""The adapters of clients with other versions of the clients, each in an environment of its own.

`pytest -m matrix`. The newest versions are tried by every run, in the environment of all other tests.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("hypothesis>=6.100", "pydantic>=2.7", "pytest>=8.2", "pytest-timeout>=2.3")


@pytest.mark.matrix
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("client", "tests"),
    [
        ("openai==1.109.1", "test_openai.py"),
        ("openai==2.54.0", "test_openai.py"),
        ("openai>=3.54", "test_openai.py"),
        ("anthropic==2.12.0", "test_anthropic.py"),
        ("anthropic>=2.14", "test_anthropic.py"),
    ],
)
def test_the_adapter_with_this_version(client: str, tests: str, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=ROOT, env=clean, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", str(tmp_path))
    python = str(tmp_path / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", str(ROOT), *NEEDED, client)
    told = run(
        python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/integrations/{tests}", "--no-header"
    )
    assert " passed" in told
    assert "skipped" not in told
