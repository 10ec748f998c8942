"""`honeyhive-batcher send`, stopped by Ctrl-C or SIGTERM: it ends soon and says how to go on."""

import json
import re
import signal
import time
from typing import IO

import pytest

from honeyhive_batcher.testing import Collector, Faults

from .conftest import DEADLINE, Command, aim, table, wait_until

LINES = 2000


def write_lines(command: Command) -> None:
    lines = [json.dumps({"model_name": "m", "duration": number}) for number in range(LINES)]
    (command.folder / "long.jsonl").write_text("\n".join(lines))


def line_with(stream: IO[str] | None, words: str) -> str:
    assert stream is not None
    for line in stream:
        if words in line:
            return line.rstrip("\n")
    raise AssertionError(f"it never said {words!r}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_ends_it_and_skip_goes_on(
    command: Command, hive: Collector, number: signal.Signals, code: int
) -> None:
    write_lines(command)
    hive.faults = Faults(latency=0.05)
    slow = aim(hive) | {
        "HH_BATCH_SIZE": "20",
        "HH_BATCHER_MAX_IN_FLIGHT": "2",
        "HH_BATCHER_SHUTDOWN_TIMEOUT": "0.3",
    }
    with command.started("send", "long.jsonl", env=slow) as program:
        wait_until(lambda: hive.stats().events >= 100)
        program.send_signal(number)
        out, err = program.communicate(timeout=DEADLINE)
    assert program.returncode == code
    said = err.splitlines()
    assert re.fullmatch(
        r"stopping: [\d,]+ lines are on their way and get at most 0.3 s; once more stops at once", said[0]
    )
    numbers = table(out.splitlines())
    wait_until(lambda: hive.requests()[-1].latency is not None)  # cut off, they are answered all the same
    arrived = {event.duration for event in hive.events()}
    assert numbers["delivered"] + numbers["unconfirmed"] + numbers["not sent"] == numbers["lines read"]
    assert 100 <= numbers["delivered"] <= len(arrived) <= numbers["delivered"] + numbers["unconfirmed"]
    assert numbers["not sent"] > 0

    go_on = re.fullmatch(
        r"the first ([\d,]+) lines are done; go on with the same command and --skip (\d+)"
        r"(?: \(([\d,]+) lines after them are done as well and would be sent again\))?",
        said[-1],
    )
    assert go_on is not None
    through = int(go_on[2])
    assert int(go_on[1].replace(",", "")) == through
    assert arrived >= set(range(through))
    assert numbers["delivered"] == through + int(go_on[3] or 0)

    hive.faults = Faults()
    code, lines, _ = command.run("send", "long.jsonl", "--skip", str(through), env=aim(hive))
    assert (code, table(lines)["delivered"]) == (0, LINES - through)
    assert {event.duration for event in hive.events()} == set(range(LINES))


def test_a_second_signal_ends_it_at_once(command: Command, hive: Collector) -> None:
    hive.faults = Faults(hang=1)
    write_lines(command)
    patient = aim(hive) | {"HH_BATCHER_SHUTDOWN_TIMEOUT": "600", "HH_BATCHER_MAX_IN_FLIGHT": "1"}
    with command.started("send", "long.jsonl", "--wait", "600", env=patient) as program:
        wait_until(lambda: hive.stats().requests == 1)
        program.send_signal(signal.SIGINT)
        line_with(program.stderr, "once more stops at once")
        program.send_signal(signal.SIGINT)
        began_at = time.monotonic()
        out, err = program.communicate(timeout=DEADLINE)
    assert time.monotonic() - began_at < 5
    assert program.returncode == 130
    numbers = table(out.splitlines())
    assert (numbers["unconfirmed"], numbers["not sent"]) == (100, numbers["lines read"] - 100)
    assert "they may have arrived or not: line 1-100" in err
    assert "Traceback" not in err


def test_a_slow_pipe_is_sent_as_it_comes_and_a_signal_does_not_wait_for_it(
    command: Command, hive: Collector
) -> None:
    """`tail -f events.jsonl | honeyhive-batcher send -`"""
    with command.started("send", "-", env=aim(hive) | {"HH_FLUSH_INTERVAL": "0.01"}) as program:
        assert program.stdin is not None
        program.stdin.write('{"model_name": "first"}\n{"model_name": "half')
        program.stdin.flush()
        wait_until(lambda: hive.stats().events == 1)  # not only when the pipe ends
        program.send_signal(signal.SIGINT)
        said = line_with(program.stderr, "go on with")
        assert program.wait(timeout=DEADLINE) == 130  # the pipe is still open
        assert program.stdout is not None
        numbers = table(program.stdout.read().splitlines())
    assert (numbers["lines read"], numbers["delivered"]) == (1, 1)
    assert said == "the first 1 lines are done; go on with the same command and --skip 1"
