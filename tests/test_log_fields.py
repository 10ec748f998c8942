"""Every log record carries fields of stable names, for programs that read the log."""

import ast
import asyncio
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from honeyhive_batcher import Batcher
from honeyhive_batcher.config import Config
from honeyhive_batcher.core.model import Response
from tests.fakes import HANG, OK, REFUSED, RESET, FakeTransport, make_batcher
from tests.virtual_time import run_virtually

ROOT = Path(__file__).parent.parent
SECTION = (ROOT / "README.md").read_text().partition("\n## The log\n")[2].partition("\n## ")[0]


def names_in(table: str) -> dict[str, str]:
    """Return what stands in the second column for every name in the first one."""
    rows = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return {name: row[1].strip() for row in rows for name in re.findall(r"`(\w+)`", row[0])}


FIELDS, KINDS = map(names_in, SECTION.strip().split("\n\n")[1:])
TYPES = {"str": str, "int": int, "float": float}

STANDARD = logging.LogRecord("n", logging.INFO, "p", 1, "m", (), None).__dict__.keys() | {
    *("message", "asctime", "taskName")
}
STRUCTLOG = {"event", "level", "logger", "logger_name", "timestamp", "exception", "exc_info", "stack_info"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call in the package that makes a log record, but for those of the commands."""
    for path in sorted((ROOT / "honeyhive_batcher").rglob("*.py")):
        if "cli" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                    "say",
                    "logger.warning",
                    "logger.log",
                }:
                    yield f"{path.name}:{node.lineno}", node


def given(call: ast.Call) -> dict[str, Any]:
    """Return the fields that stand in a call, and the constants among their values."""
    pairs = [(keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg]
    return {name: getattr(value, "value", None) for name, value in pairs if name not in {"error", "extra"}}


class Json(logging.Formatter):
    """What everybody writes to have a log in JSON."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"message": record.getMessage(), **extra(record)})


def extra(record: logging.LogRecord) -> dict[str, Any]:
    """Return what structlog's `ExtraAdder` would add."""
    return {name: value for name, value in record.__dict__.items() if name not in STANDARD}


def said(caplog: pytest.LogCaptureFixture, kind: str) -> list[dict[str, Any]]:
    """Return the records of this kind as JSON; all of them are as README says."""
    found = []
    for record in caplog.records:
        if record.name == "honeyhive_batcher":
            fields = extra(record)
            assert KINDS[fields["kind"]]
            assert logging.getLevelName(record.levelno) in re.findall(r"\w+", KINDS[fields["kind"]])
            for name, value in fields.items():
                assert type(value) is TYPES[FIELDS[name]], (name, value)
            line = json.loads(Json().format(record))
            assert line == {"message": record.getMessage(), **fields}
            found += [line] if fields["kind"] == kind else []
    return found


def test_every_line_of_the_package_has_a_kind_and_only_fields_that_are_documented() -> None:
    kinds: set[str] = set()
    for place, call in calls():
        if ast.unparse(call.func) == "say":
            fields = given(call)
            assert fields.keys() <= FIELDS.keys(), place
            assert fields["kind"] in KINDS, place
            kinds.add(fields["kind"])
        else:
            assert any(keyword.arg == "extra" for keyword in call.keywords), place
    config = (ROOT / "honeyhive_batcher" / "config.py").read_text()
    kinds |= set(re.findall(r'"kind": "(\w+)"', config))
    assert kinds == KINDS.keys()


def test_no_field_has_a_name_that_the_standard_library_or_structlog_has_taken() -> None:
    assert FIELDS.keys() & (STANDARD | STRUCTLOG) == set()


def test_losses(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        transport = FakeTransport(Response(status=400), RESET, HANG)
        settings: dict[str, Any] = {"max_batch_events": 1, "on_ambiguous": "drop", "max_queue_events": 3}
        async with make_batcher(transport, flush_interval=0, shutdown_timeout=1, **settings) as batcher:
            for _ in range(4):
                batcher.push({"model": "secret"})
            batcher.push("secret")
            await asyncio.sleep(0.5)

    run_virtually(main)
    first = said(caplog, "events_lost")[0]
    assert first["message"].startswith("events lost: ")
    assert (first["lost"], first["refused"], first["dropped"], first["unconfirmed"]) == (2, 2, 0, 0)
    assert first["reason"] == "queue_full,not_an_event"
    assert first["held"] == 3
    lines = said(caplog, "events_lost")
    assert sum(line["lost"] for line in lines) == 4
    assert sum(line["dropped"] for line in lines) == 1
    assert sum(line["unconfirmed"] for line in lines) == 1
    assert {name for line in lines for name in line["reason"].split(",")} == {
        *("queue_full", "not_an_event", "rejected", "unconfirmed")
    }
    (closed,) = said(caplog, "closed")
    assert closed["message"].startswith("closed: of the 1 events still held")
    assert (closed["held"], closed["delivered"], closed["dropped"], closed["unconfirmed"]) == (1, 0, 0, 1)
    assert closed["lost"] == 1
    assert closed["cause"]
    assert "secret" not in json.dumps(lines)


def test_a_close_that_lost_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "honeyhive_batcher")

    async def main() -> None:
        async with make_batcher(FakeTransport()) as batcher:
            batcher.push({})

    run_virtually(main)
    (closed,) = said(caplog, "closed")
    assert (closed["held"], closed["delivered"], closed["lost"]) == (1, 1, 0)


def test_an_outage_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "honeyhive_batcher")

    async def main() -> None:
        transport = FakeTransport(otherwise=REFUSED)
        batcher = make_batcher(transport, base_url="http://localhost:81")
        async with batcher:
            batcher.push({"model": "m"})
            await asyncio.sleep(200)
            transport.otherwise = OK
            await asyncio.sleep(200)

    run_virtually(main)
    (first,) = said(caplog, "batch_not_taken")
    assert (first["host"], first["cause"], first["held"]) == ("localhost:81", "connection refused", 1)
    outage, *later = said(caplog, "outage")
    assert outage["seconds"] == pytest.approx(30, abs=1)
    assert f"for {outage['seconds']:.0f} s" in outage["message"]
    assert [line["host"] for line in later] == ["localhost:81"] * len(later) != []
    assert all(line["seconds"] > 60 for line in later)
    (recovered,) = said(caplog, "recovered")
    assert (recovered["host"], recovered["held"]) == ("localhost:81", 0)


def test_a_key_that_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with make_batcher(FakeTransport(otherwise=Response(status=401)), shutdown_timeout=0) as batcher:
            batcher.push({"model": "m"})
            await asyncio.sleep(5)

    run_virtually(main)
    (held,) = said(caplog, "endpoint_held")
    assert (held["host"], held["cause"], held["held"]) == ("api.honeyhive.ai", "HTTP 401", 1)
    assert "hh_test" not in json.dumps(held)


def test_what_a_program_did(caplog: pytest.LogCaptureFixture) -> None:
    batcher = Batcher(api_key="hh_test", max_batch_bytes=1024)
    batcher.session(inputs="x" * 1000)
    assert said(caplog, "properties_too_large")[0]["limit"] == 512
    batcher._lifecycle.abandon()
    batcher.push({})
    assert said(caplog, "pushed_after_close")[0]["reason"] == "closed"


def test_settings(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"HH_API_KEY": "hh_test", "HH_API_URL": "http://hive.example:81", "HH_MAX_RETRIES": "many"}
    Config.from_env(environ)
    assert said(caplog, "setting_not_valid")[0]["setting"] == "max_retries"
    assert said(caplog, "not_encrypted")[0]["host"] == "hive.example:81"
    Config.of(api_key="hh_test", verify_tls=False)
    assert said(caplog, "not_verified")[0]["setting"] == "verify_tls"
