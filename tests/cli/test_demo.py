"""`honeyhive-batcher demo`, run as a program: it ends by itself and tells the truth."""

import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .conftest import DEADLINE, Command, wait_until


def numbers(line: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", line)]


def equations(out: list[str]) -> dict[str, int]:
    """Check the two equations, and return their terms."""
    n = r"[\d,]+"
    offered = re.fullmatch(rf"offered {n} = accepted {n} \+ refused {n}", out[1])
    accepted = re.fullmatch(
        rf"accepted {n} = delivered {n} \+ dropped {n} \+ unconfirmed {n} \+ held {n}",
        out[2],
    )
    assert offered is not None
    assert accepted is not None
    total, *parts = numbers(out[1])
    assert total == sum(parts)
    assert parts[0] == numbers(out[2])[0]
    names = ("accepted", "delivered", "dropped", "unconfirmed", "held")
    terms = dict(zip(names, numbers(out[2]), strict=True))
    assert terms["accepted"] == sum(terms.values()) - terms["accepted"]
    return {"offered": total, "refused": parts[1], **terms}


def rows(out: list[str], title: str) -> Iterable[list[str]]:
    """Return the cells of a table below its header."""
    for line in out[out.index(title) + 2 :]:
        if not line:
            return
        yield re.split(r" {2,}", line.strip())


def query(db: Path, sql: str) -> list[Any]:
    connection = sqlite3.connect(db)
    try:
        return [*connection.execute(sql).fetchone()]
    finally:
        connection.close()


def test_it_ends_by_itself_with_everything_delivered(command: Command) -> None:
    began_at = time.monotonic()
    code, out, err = command.run("demo", "--seconds", "2", "--db", "my demo.db")
    assert time.monotonic() - began_at < 15
    terms = equations(out)
    assert code == 0
    assert terms["offered"] == terms["delivered"] > 100
    db = command.folder / "my demo.db"
    stored, distinct = query(db, "SELECT count(*), count(DISTINCT event_id) FROM events")
    (ended,) = query(
        db, "SELECT count(*) FROM sessions WHERE json_extract(properties, '$.metrics.turns') > 0"
    )
    (errors,) = query(db, "SELECT count(*) FROM events WHERE error IS NOT NULL")
    (calls,) = query(db, "SELECT count(*) FROM events WHERE event LIKE '%\"tool_calls\":%'")
    assert stored == distinct
    assert stored + ended == terms["delivered"]
    assert (ended > 0, errors > 0, calls > 0) == (True, True, True)
    assert out[3] == (
        f"The collector has {stored:,} events and the ends of {ended:,} sessions: "
        f"each of the {terms['delivered']:,} delivered, exactly once"
    )
    (requests,) = query(db, "SELECT count(*) FROM requests WHERE status = 200")
    by_size = list(rows(out, "Requests by size"))
    assert sum(int(row[1]) for row in by_size) == sum(int(row[3]) for row in by_size) == requests
    assert sum(numbers(row[2])[0] for row in by_size) == stored
    by_cause = {row[0]: int(row[1]) for row in rows(out, "Requests by what caused them")}
    assert set(by_cause) == {
        "full: it had 50 events",
        "by time: its oldest event had waited 0.25 s",
        "flush at the end",
    }
    assert sum(by_cause.values()) == requests
    assert err[0].startswith("A chat service runs for 2 s and logs to a local HoneyHive at http://127.0.0.1:")
    assert err[-1] == "The service has stopped; what is queued is delivered"

    assert out[-3] == "Everything is in my demo.db; look into it with either of"
    assert out[-2].startswith("sqlite3 -header -column 'my demo.db' \"SELECT model, ")
    shown = subprocess.run(
        out[-1], shell=True, cwd=command.folder, capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    assert "('gpt-4o-mini', " in shown.stdout


def test_with_faults_it_survives_and_says_what_was_sent_twice(command: Command) -> None:
    code, out, err = command.run(
        *("demo", "--seconds", "1", "--db", "demo.db", "--retry-after", "0", "--seed", "3"),
        *("--fail", "429:0.2", "--partial", "0.1", "--fail-after-store", "0.1"),
    )
    terms = equations(out)
    assert (code, terms["offered"]) == (0, terms["delivered"])
    stored, distinct = query(
        command.folder / "demo.db", "SELECT count(*), count(DISTINCT event_id) FROM events"
    )
    assert stored > distinct
    assert out[3].endswith(
        f", and {stored - distinct:,} events once more: where an answer is lost, they are sent again "
        "(at least once)"
    )
    by_cause = {row[0]: int(row[1]) for row in rows(out, "Requests by what caused them")}
    assert by_cause["sent again"] > 0
    assert sum("it is tried again" in line for line in err) == 1


def test_what_is_lost_is_named_and_the_exit_code_says_so(command: Command) -> None:
    code, out, err = command.run("demo", "--seconds", "0.5", "--fail", "401:1", "--db", "demo.db")
    terms = equations(out)
    assert code == 1
    assert terms["delivered"] == 0
    assert terms["dropped"] == terms["offered"] > 0
    assert out[3] == "The collector has 0 events and the ends of 0 sessions"
    assert err[-1] == (
        f"honeyhive-batcher demo: not everything was delivered: {terms['dropped']:,} dropped (shutdown); "
        "last error: HTTP 401"
    )


def test_without_a_file_the_database_is_a_new_one_that_stays(command: Command) -> None:
    code, out, _ = command.run("demo", "--seconds", "0.2", env={"TMPDIR": str(command.folder)})
    db = Path(out[-3].removeprefix("Everything is in ").partition(";")[0])
    assert code == 0
    assert db.parent.parent == command.folder
    assert query(db, "SELECT count(*) > 0 FROM events") == [1]


def test_ctrl_c_ends_it_early_with_the_same_summary(command: Command) -> None:
    with command.started("demo", "--seconds", "600", "--db", "demo.db") as program:
        assert program.stderr is not None
        assert program.stderr.readline().startswith("A chat service runs for 600 s")
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=DEADLINE)
    assert program.returncode == 130
    terms = equations(out.splitlines())
    assert terms["offered"] == terms["delivered"]
    assert "Traceback" not in err


def test_a_second_ctrl_c_does_not_wait_for_what_is_queued(command: Command) -> None:
    with command.started(
        "demo", "--seconds", "600", "--hang", "1", "--latency", "60", "--db", "d.db"
    ) as program:
        assert program.stderr is not None
        assert program.stderr.readline().startswith("A chat service runs")
        wait_until(lambda: query(command.folder / "d.db", "SELECT count(*) FROM requests")[0])
        program.send_signal(signal.SIGINT)
        assert program.stderr.readline().startswith("The service has stopped")
        program.send_signal(signal.SIGINT)
        began_at = time.monotonic()
        out, err = program.communicate(timeout=DEADLINE)
    assert time.monotonic() - began_at < 4  # the flush alone may take 7
    assert program.returncode == 130
    terms = equations(out.splitlines())
    assert terms["unconfirmed"] > 0
    assert "unconfirmed (sent, but no answer came)" in err
