"""`honeyhive-batcher send`, run as a program: what arrives, what is rejected, and what it says."""

import gzip
import json
import os
import pty
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from honeyhive_batcher.testing import Collector, Faults

from .conftest import CORPUS, Command, aim, event_line, table


def exact(text: bytes) -> dict[str, Any]:
    """Decode with every number as the text it is, so that none can pass for another."""
    decoded: dict[str, Any] = json.loads(
        text, parse_int=lambda digits: f"#{digits}", parse_float=lambda d: f"#{d}"
    )
    return decoded


def canonical(event: dict[str, Any]) -> str:
    return json.dumps(event, sort_keys=True)


@pytest.mark.parametrize("way", ["file", "gz", "stdin", "gz on stdin"])
def test_every_line_arrives_key_for_key(command: Command, hive: Collector, way: str) -> None:
    data = CORPUS.read_bytes()
    packed = gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])  # two members
    (command.folder / "corpus.jsonl").write_bytes(data)
    (command.folder / "corpus.jsonl.gz").write_bytes(packed)
    name, stdin = {
        "file": ("corpus.jsonl", b""),
        "gz": ("corpus.jsonl.gz", b""),
        "stdin": ("-", data),
        "gz on stdin": ("-", packed),
    }[way]
    code, out, err = command.run("send", name, stdin=stdin, env=aim(hive))
    assert (code, err) == (0, [])
    lines = [exact(line) for line in data.splitlines()]
    assert table(out) == {
        "lines read": len(lines),
        "delivered": len(lines),
        "rejected": 0,
        "unconfirmed": 0,
        "not sent": 0,
    }
    stored = [exact(event.raw) for event in hive.events()]
    own_ids = {line["event_id"] for line in lines if "event_id" in line}
    made_ids = {event["event_id"] for event in stored} - own_ids
    assert own_ids
    assert len(made_ids) + len(own_ids) == len(lines)
    for event in stored:
        if event["event_id"] in made_ids:
            del event["event_id"]
    assert Counter(map(canonical, stored)) == Counter(map(canonical, lines))
    assert sorted(path.name for path in command.folder.iterdir()) == ["corpus.jsonl", "corpus.jsonl.gz"]


def test_numbers_stay_what_they_are(command: Command, hive: Collector) -> None:
    line = (
        b'{"model_name":"m","event_id":"mine","a":123456789012345678901234567890,"b":-9223372036854775809,'
        b'"c":1.10,"d":1E5,"e":0.1000000000000000055511151231257827,"f":1e-400,"g":null,"h":[ 1.0, -0 ]}'
    )
    code, _, err = command.run("send", "-", stdin=line, env=aim(hive))
    assert (code, err) == (0, [])
    (stored,) = hive.events()
    assert stored.raw == line


def test_options_fill_in_what_a_line_leaves_out(command: Command, hive: Collector) -> None:
    lines = event_line(1) + event_line(2, project="own", source="own", event_id="own")
    options = ("--project", "p", "--source", "s", "--api-key", "hh_own", "--base-url", hive.url)
    code, _, err = command.run(
        "send", "-", *options, "--batch-size", "1", stdin=lines, env={"HH_API_KEY": "hh_env"}
    )
    assert (code, err) == (0, [])
    first, second = sorted(hive.events(), key=lambda event: event.duration or 0)
    assert (first.project, first.source) == ("p", "s")
    assert (second.project, second.source, second.event_id) == ("own", "own", "own")
    assert [request.events for request in hive.requests()] == [1, 1]


def test_bad_lines_are_named_and_kept_as_they_were(command: Command, hive: Collector) -> None:
    good = b'\xef\xbb\xbf{"model_name":"first"}'
    bad = [
        b"[1]",
        b"not json\r",
        b'{"model_name":"\xff"}',
        b'{"model_name":"x","v":1e400}',
        b'{"model_name":"\\ud800"}',
        b'{"model_name":"x","event_id":5}',
        b'{"model_name":"' + b"y" * 3000 + b'"}',
        b'{"model_name":"' + b"z" * 200_000 + b'"}',
        b'{"project":"the server wants more"}',
    ]
    lines = [good, b" \r", *bad, b'{"model_name":"last"}']
    (command.folder / "events.jsonl").write_bytes(b"\n".join(lines))
    expected = [
        "events.jsonl:3: not a JSON object",
        "events.jsonl:4: JSON is malformed: invalid character (byte 4)",
        "events.jsonl:5: not UTF-8 (byte 16)",
        "events.jsonl:6: number out of range",
        "events.jsonl:7: a string in it holds half of a character (a lone surrogate)",
        "events.jsonl:8: event_id is not a string of printable characters",
        "events.jsonl:9: the encoded event is larger than 2000 bytes",
        "events.jsonl:10: longer than 2000 bytes",
        "events.jsonl:11: rejected by the server (last error: HTTP 400)",
    ]
    for name in ("events.rejected.jsonl", "events.rejected-2.jsonl"):
        hive.clear()
        code, out, err = command.run(
            "send", "events.jsonl", env=aim(hive) | {"HH_BATCHER_MAX_EVENT_BYTES": "2000"}
        )
        assert code == 1
        assert sorted(err) == sorted(expected)
        assert (command.folder / name).read_bytes() == b"".join(line + b"\n" for line in bad)
        assert table(out) == {
            "lines read": 12,
            "delivered": 2,
            "rejected": 9,
            "unconfirmed": 0,
            "not sent": 0,
        }
        assert out[0].endswith("(1 blank)")
        assert out[2].endswith(f"(see {name})")
        assert {event.model for event in hive.events()} == {"first", "last"}


def test_rejected_lines_go_where_they_are_told(command: Command, hive: Collector) -> None:
    code, out, err = command.run("send", "-", stdin=b"{}x\n", env=aim(hive))
    assert (code, err[0]) == (1, "stdin:1: JSON is malformed: trailing characters (byte 3)")
    assert (command.folder / "stdin.rejected.jsonl").read_bytes() == b"{}x\n"
    code, out, _ = command.run("send", "-", "--rejected", "mine", stdin=b"1\n", env=aim(hive))
    assert (code, (command.folder / "mine").read_bytes()) == (1, b"1\n")
    code, out, err = command.run("send", "-", "--rejected", "mine", stdin=b"2\n", env=aim(hive))
    assert (code, out) == (2, [])
    assert err == [
        "honeyhive-batcher send: mine exists; choose another file with --rejected, or move it away"
    ]
    assert (command.folder / "mine").read_bytes() == b"1\n"
    code, out, err = command.run("send", "-", "--rejected", "/dev/null", stdin=b"2\n", env=aim(hive))
    assert (code, out[2]) == (1, "rejected               1  (see /dev/null)")


def test_a_file_for_rejected_lines_that_cannot_be_written_stops_it(command: Command, hive: Collector) -> None:
    code, out, err = command.run("send", "-", "--rejected", "no/such/folder", stdin=b"1\n2\n", env=aim(hive))
    assert code == 1
    assert err[2] == (
        "honeyhive-batcher send: cannot write no/such/folder: No such file or directory; "
        "choose another file with --rejected"
    )
    assert table(out)["rejected"] == 2


def test_a_wrong_variable_is_warned_about_in_one_line(command: Command, hive: Collector) -> None:
    code, _, err = command.run("send", "-", stdin=event_line(1), env=aim(hive) | {"HH_BATCH_SIZE": "many"})
    assert code == 0
    assert len(err) == 1
    assert err[0].startswith("HH_BATCH_SIZE='many' is not valid")


def test_test_mode_says_that_nothing_is_sent(command: Command) -> None:
    code, out, err = command.run("send", "-", stdin=event_line(1), env={"HH_TEST_MODE": "1"})
    assert (code, table(out)["delivered"]) == (0, 1)
    assert err == ["HH_TEST_MODE is set: nothing leaves this machine"]


def test_skip_leaves_out_the_first_lines(command: Command, hive: Collector) -> None:
    lines = b"no event\n\n" + b"".join(map(event_line, range(5)))
    code, out, err = command.run("send", "-", "--skip", "4", stdin=lines, env=aim(hive))
    assert (code, err) == (0, [])
    assert out[0] == "lines read             7  (4 skipped)"
    assert sorted(event.duration or 0 for event in hive.events()) == [2, 3, 4]


def test_on_a_terminal_there_is_a_bar(command: Command, hive: Collector) -> None:
    hive.faults = Faults(latency=0.3)
    leader, follower = pty.openpty()
    (command.folder / "events.jsonl").write_bytes(event_line(1) + b"bad\n")
    done = subprocess.run(
        command.line("send", "events.jsonl"),
        cwd=command.folder,
        env=command.environment(aim(hive) | {"TERM": "xterm", "COLUMNS": "120"}),
        stdout=subprocess.PIPE,
        stderr=follower,
        check=False,
        timeout=20,
    )
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert done.returncode == 1
    assert "events.jsonl:2: JSON is malformed: invalid character (byte 0)" in shown
    assert "0 delivered  0 events/s  50%" in shown
    assert "\x1b[" in shown
    assert table(done.stdout.decode().splitlines())["delivered"] == 1


def test_nobody_reading_the_summary_is_no_failure(command: Command, hive: Collector) -> None:
    with command.started("send", "-", env=aim(hive)) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        program.stdin.write(event_line(1).decode())
        program.stdin.close()
        assert program.wait(timeout=20) == 0
        assert program.stderr.read() == ""
    assert hive.stats().events == 1


def peak_memory(command: Command, path: Path) -> int:
    """Return the most bytes that a run held, in a program that does nothing else."""
    code = (
        "import resource, sys; from honeyhive_batcher.cli import main\n"
        "assert main(['send', sys.argv[1]]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=command.environment({"HH_TEST_MODE": "1", "HH_BATCHER_MAX_QUEUE_BYTES": "2000000"}),
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    return int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.skipif(not hasattr(resource, "getrusage"), reason="nothing to measure with")
def test_memory_stays_flat_however_long_the_file_is(command: Command) -> None:
    line = event_line(1, messages=[{"role": "user", "content": "x" * 4000}])
    short, long = command.folder / "short.jsonl", command.folder / "long.jsonl"
    short.write_bytes(line * 1500)  # more than the queue holds
    long.write_bytes(line * 15_000)
    growth = peak_memory(command, long) - peak_memory(command, short)
    assert growth < 0.2 * (long.stat().st_size - short.stat().st_size)
