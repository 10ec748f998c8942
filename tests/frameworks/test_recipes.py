"""Every recipe of the README, as it stands, with the real package, its real server or worker, and an end."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from honeyhive_batcher.testing import Collector, collector_in_thread
from tests.child_process import unused_port

_README = (Path(__file__).parent.parent.parent / "README.md").read_text()
RECIPES = dict(
    re.findall(
        r"#### ([^\n]+)\n.*?```python\n(.*?)```",
        _README[_README.index("<!-- recipes:") : _README.index("<!-- end of recipes")],
        re.DOTALL,
    )
)

_UVICORN = ("-m", "uvicorn", "--port", "{port}")
SERVED = {
    "Starlette": (*_UVICORN, "recipe:app"),
    "Litestar": (*_UVICORN, "recipe:app"),
    "Django": (*_UVICORN, "recipe:application"),
    "Quart": (*_UVICORN, "recipe:app"),
    "Sanic": ("-m", "sanic", "recipe:app", "--single-process", "--port", "{port}"),
    "Flask": ("-m", "gunicorn", "recipe:app", "--preload", "-w", "2", "-b", "127.0.0.1:{port}"),
}


@pytest.fixture
def hive() -> Iterator[Collector]:
    with collector_in_thread() as collector:
        yield collector


@pytest.fixture
def place(tmp_path: Path, hive: Collector, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the recipe is to lie, with the environment that it needs."""
    for name in list(os.environ):
        if name.startswith("HH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HH_API_URL", hive.url)
    monkeypatch.setenv("HH_API_KEY", "hh_test")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def imported(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (place / "recipe.py").write_text(RECIPES[name])
    spec = importlib.util.spec_from_file_location("recipe", place / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "recipe", recipe)
    spec.loader.exec_module(recipe)
    return recipe


def get(url: str, **headers: str) -> str:
    """Ask until the server is up."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def wait_until_up(name: str, output: Path) -> None:
    """Wait for a server that answers before it is up, and does not end well if it is stopped before that."""
    deadline = time.monotonic() + 60
    while name == "Sanic" and "Worker ready" not in output.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)


def questions(hive: Collector) -> list[Any]:
    return [stored.event["inputs"]["question"] for stored in hive.events()]


def test_there_is_a_test_for_every_recipe() -> None:
    assert {*RECIPES} == {*SERVED, "Celery", "arq", "taskiq", "AWS Lambda"}


@pytest.mark.parametrize("name", SERVED)
def test_a_service_delivers_what_a_request_pushed_when_it_is_stopped(
    name: str, place: Path, hive: Collector
) -> None:
    (place / "recipe.py").write_text(RECIPES[name])
    port = unused_port()
    with (place / "output").open("w+") as output:
        server = subprocess.Popen(
            [sys.executable, *(part.format(port=port) for part in SERVED[name])],
            cwd=place,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            answer = get(f"http://127.0.0.1:{port}/ask?question=Why", **{"X-Session-Id": "s-1"})
        finally:
            wait_until_up(name, place / "output")
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)
        output.seek(0)
        printed = output.read()
    assert answer == "Honey."
    assert "Traceback" not in printed, printed
    assert "honeyhive" not in printed.replace("honeyhive_batcher.", ""), printed
    assert questions(hive) == ["Why"], printed
    if name == "Django":
        assert [session.session_id for session in hive.sessions()] == ["s-1"]


@pytest.mark.filterwarnings("default")  # of Celery's own
def test_celery_delivers_what_its_prefork_children_pushed(place: Path, hive: Collector) -> None:
    (place / "recipe.py").write_text(RECIPES["Celery"])
    (place / "in").mkdir()
    (place / "celery_config.py").write_text(
        "broker_url = 'filesystem://'\n"
        f"broker_transport_options = {{'data_folder_in': {str(place / 'in')!r}, "
        f"'data_folder_out': {str(place / 'in')!r}, 'control_folder': {str(place / 'control')!r}}}\n"
        "worker_enable_remote_control = False\n"
    )
    variables = {**os.environ, "CELERY_CONFIG": "celery_config"}
    asking = "import recipe\nfor number in range(6): recipe.ask.delay(f'Why {number}')\n"
    subprocess.run([sys.executable, "-c", asking], cwd=place, env=variables, check=True, timeout=60)
    with (place / "output").open("w+") as output:
        worker = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "recipe",
                "worker",
                "-P",
                "prefork",
                "-c",
                "2",
                "-l",
                "INFO",
            ],
            cwd=place,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 60
            while (place / "output").read_text().count("succeeded") < 6 and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(timeout=60)
        output.seek(0)
        printed = output.read()
    assert sorted(questions(hive)) == [f"Why {number}" for number in range(6)], printed
    assert "Traceback" not in printed, printed


@pytest.mark.anyio
async def test_taskiq_delivers_what_its_worker_pushed(
    place: Path, hive: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = imported(place, "taskiq", monkeypatch)
    recipe.broker.is_worker_process = True
    await recipe.broker.startup()
    result = await (await recipe.ask.kiq("Why")).wait_result(timeout=30)
    await recipe.broker.shutdown()
    assert result.return_value == "Honey."
    assert questions(hive) == ["Why"]
    assert recipe.batcher.statistics().held == 0


def test_lambda_delivers_before_each_invocation_ends(
    place: Path, hive: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = imported(place, "AWS Lambda", monkeypatch)
    for number in range(1, 4):
        assert recipe.lambda_handler({"question": str(number)}, None) == "Honey."
        assert questions(hive) == [str(each) for each in range(1, number + 1)]


def test_arq_delivers_what_its_worker_pushed(place: Path, hive: Collector) -> None:
    """With a Redis made of Python, in a process of its own."""
    port = unused_port()
    (place / "recipe.py").write_text(RECIPES["arq"])
    (place / "redis_server.py").write_text(
        f"from fakeredis import TcpFakeServer\nTcpFakeServer(('127.0.0.1', {port}), server_type='redis')"
        ".serve_forever()\n"
    )
    (place / "work.py").write_text(
        "import asyncio, json\n"
        "from arq import create_pool, worker as arq_worker\n"
        "from arq.connections import RedisSettings\n"
        "from arq.worker import create_worker\n"
        "import recipe\n"
        f"redis = RedisSettings(port={port}, conn_retries=50, conn_retry_delay=0.2)\n"
        "async def nothing(*_): pass\n"
        "arq_worker.log_redis_info = nothing  # it asks for what that Redis does not know\n"
        "async def main():\n"
        "    pool = await create_pool(redis)\n"
        "    job = await pool.enqueue_job('ask', 'Why')\n"
        "    worker = create_worker(recipe.WorkerSettings, redis_settings=redis, burst=True)\n"
        "    await worker.main()\n"
        "    answer = await job.result(timeout=30)\n"
        "    await worker.close()\n"
        "    await pool.aclose()\n"
        "    print(json.dumps([answer, recipe.batcher.statistics().held]))\n"
        "asyncio.run(main())\n"
    )
    server = subprocess.Popen([sys.executable, "redis_server.py"], cwd=place)
    try:
        done = subprocess.run(
            [sys.executable, "work.py"], cwd=place, capture_output=True, text=True, timeout=90, check=False
        )
    finally:
        server.kill()
        server.wait()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["Honey.", 0]
    assert questions(hive) == ["Why"]
