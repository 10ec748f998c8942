"""The parts that decide what the suite says: cutting HTTP, percentiles, tables, bounds."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import anatomy
from benchmarks.bounds import BOUNDS, Bound, check
from benchmarks.cli import PARTS, Plan
from benchmarks.http import Cutter, plain
from benchmarks.push import CASES, push_cost
from benchmarks.report import Column, Report, Table, percentile, spread

ROOT = Path(__file__).parents[2]

PLAIN = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


@pytest.mark.parametrize("step", [1, 7, 1_000])
def test_requests_are_cut_wherever_the_bytes_break(step: int) -> None:
    stream, cutter, found = PLAIN + CHUNKED + PLAIN, Cutter(), []
    for at in range(0, len(stream), step):
        found += cutter.feed(stream[at : at + step])
    assert [(message.first_line[5:7], message.body) for message in found] == [
        (b"/a", b"hello"),
        (b"/b", b"hello"),
        (b"/a", b"hello"),
    ]


def test_compression_comes_off() -> None:
    body = gzip.compress(b"hello")
    head = b"POST /c HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    (message,) = Cutter().feed(head + body)
    assert plain(message) == b"hello"


def test_percentiles_and_spreads() -> None:
    ordered = [float(number) for number in range(1_000)]
    assert [percentile(ordered, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 999]
    assert spread([3.0, 1.0, 2.0]) == "2.00 [1.00..3.00]"


def test_a_table_is_markdown() -> None:
    table = Table(
        "A title", [Column("name"), Column("figure", ",.1f")], [["one", 1234.5], ["two", None]], ["why"]
    )
    assert list(table.lines()) == [
        "### A title",
        "",
        "| name | figure |",
        "| --- | ---: |",
        "| one | 1,234.5 |",
        "| two | - |",
        "",
        "- why",
        "",
    ]


def test_a_bound_passes_fails_or_was_not_measured() -> None:
    report = Report("push", figures={"median": 2.4})
    table, failed = check([report])
    assert [row[-1] for row in table.rows] == ["pass", "not measured"]
    assert failed == []
    report.figures |= {"median": 2.41, "p99": 8.0}
    table, failed = check([report])
    assert [row[-1] for row in table.rows] == ["FAIL", "pass"]
    assert [bound.figure for bound in failed] == ["median"]


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: f"{bound.part}: {bound.figure}")
def test_every_bound_can_fail(bound: Bound) -> None:
    beyond = bound.limit * 2 + 1 if bound.sign == "<=" else bound.limit / 2
    assert bound.part in PARTS
    assert bound.holds(bound.limit)
    assert not bound.holds(beyond)


def test_a_push_is_accepted_in_every_case_but_a_full_queue() -> None:
    for case in CASES:
        cost = push_cost(case, 0, 100)
        assert cost.accepted == (1 if case.is_full else 200)
        assert len(cost.pushes) == len(cost.encodes) == 100


def test_a_part_runs_alone_and_writes_what_it_found(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.throughput", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| batcher |" in done.stdout
    checked = subprocess.run(
        [sys.executable, "-m", "benchmarks.bounds", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "| events lost end to end | <= 0 | 0.000 | pass |" in checked.stdout


def test_the_anatomy_of_a_push_has_a_row_for_each_step() -> None:
    (table,) = anatomy.measure(Plan(quick=True)).tables
    assert [row[0] for row in table.rows][:4] == [
        "one encode",
        "push",
        "the same in one function, the least that it can be",
        "- encoder",
    ]
    assert table.rows[0][2] == 1.0
    assert all(isinstance(row[1], float) for row in table.rows)
    encode, push, least = (int(row[3] or 0) for row in table.rows[:3])
    assert encode == 0
    assert 50 < least < push < 3 * least
