"""`honeyhive-batcher send` when something is wrong: one clear sentence, the right code, the truth."""

import gzip

from honeyhive_batcher.runtime.reporter import advice
from honeyhive_batcher.testing import Answer, Collector, Faults

from .conftest import CORPUS, Command, aim, event_line, table


def test_a_wrong_key_is_said_once_and_ends_it(command: Command, hive_with_key: Collector) -> None:
    lines = b"".join(map(event_line, range(12_000)))
    settings = aim(hive_with_key, "hh_wrong") | {"HH_BATCHER_MAX_QUEUE_EVENTS": "150"}
    code, out, err = command.run("send", "-", stdin=lines, env=settings)
    host = hive_with_key.url.removeprefix("http://")
    assert code == 3
    assert err == [
        f"honeyhive-batcher send: {host} answers HTTP 401: {advice('HTTP 401')}",
        "the first line is not done: send all of it again",
    ]
    # One more than fits into the queue: that one was waiting for room.
    assert table(out) == {"lines read": 151, "delivered": 0, "rejected": 0, "unconfirmed": 0, "not sent": 151}
    assert hive_with_key.stats().events == 0


def test_a_wrong_address_is_one_clear_sentence(command: Command, hive: Collector) -> None:
    code, out, err = command.run("send", str(CORPUS), env=aim(hive) | {"HH_API_URL": f"{hive.url}/wrong"})
    assert code == 3
    assert err[0] == (
        f"honeyhive-batcher send: {hive.url.removeprefix('http://')} answers HTTP 404: there is no HoneyHive "
        "at this address; check HH_API_URL"
    )
    assert table(out)["not sent"] == 37


def test_no_server_is_one_clear_sentence(command: Command) -> None:
    code, out, err = command.run(
        "send", str(CORPUS), "--wait", "0.5", env={"HH_API_URL": "http://127.0.0.1:9", "HH_API_KEY": "hh_key"}
    )
    assert code == 3
    assert err[0].startswith("127.0.0.1:9 did not take a batch (cannot connect")
    assert err[1].startswith(
        "honeyhive-batcher send: 127.0.0.1:9 has taken nothing for 0.5 s (cannot connect"
    )
    assert err[1].endswith(
        "check the network and --base-url or HH_API_URL, or allow it more time with --wait"
    )
    assert err[2:] == ["the first line is not done: send all of it again"]
    assert table(out) == {"lines read": 37, "delivered": 0, "rejected": 0, "unconfirmed": 0, "not sent": 37}


def test_a_server_that_never_answers_leaves_lines_unconfirmed(command: Command, hive: Collector) -> None:
    hive.faults = Faults(hang=1)
    code, out, err = command.run(
        "send", "-", "--wait", "0.5", stdin=b"".join(map(event_line, range(3))), env=aim(hive)
    )
    assert code == 3
    assert err[0].startswith(
        f"honeyhive-batcher send: {hive.url.removeprefix('http://')} has taken nothing for 0.5 s"
    )
    assert err[1:] == [
        "sent without an answer, so they may have arrived or not: line 1-3",
        "the first line is not done: send all of it again",
    ]
    assert table(out) == {"lines read": 3, "delivered": 0, "rejected": 0, "unconfirmed": 3, "not sent": 0}


def test_a_short_outage_costs_nothing(command: Command, hive: Collector) -> None:
    hive.script(*[Answer.refused(503, retry_after="0")] * 7)  # more than the library's own 5 retries
    settings = {"HH_BATCHER_BACKOFF_BASE": "0.01", "HH_BATCHER_BACKOFF_MAX": "0.01"}
    code, out, err = command.run("send", "-", stdin=event_line(1), env=aim(hive) | settings)
    assert (code, table(out)["delivered"]) == (0, 1)
    assert err == [f"{hive.url.removeprefix('http://')} did not take a batch (HTTP 503); it is tried again"]


def test_what_is_given_up_is_kept_as_well(command: Command, hive: Collector) -> None:
    hive.faults = Faults(fail={503: 1}, retry_after="0")
    code, out, err = command.run("send", "-", stdin=event_line(1), env=aim(hive) | {"HH_MAX_RETRIES": "0"})
    assert code == 1
    assert err[0] == "stdin:1: given up: the server did not take it (last error: HTTP 503)"
    assert table(out) == {"lines read": 1, "delivered": 0, "rejected": 1, "unconfirmed": 0, "not sent": 0}
    assert (command.folder / "stdin.rejected.jsonl").read_bytes() == event_line(1)


def test_compressed_data_that_breaks_off_is_one_clear_sentence(command: Command, hive: Collector) -> None:
    data = gzip.compress(b"".join(map(event_line, range(2000))))
    (command.folder / "cut.jsonl.gz").write_bytes(data[: len(data) // 2])
    code, out, err = command.run("send", "cut.jsonl.gz", env=aim(hive))
    read = table(out)["lines read"]
    assert code == 1
    first, second = err
    assert first == (
        f"honeyhive-batcher send: cannot read cut.jsonl.gz on after line {read}: the compressed data is "
        "damaged or cut short (Compressed file ended before the end-of-stream marker was reached)"
    )
    assert second == (f"the first {read:,} lines are done; go on with the same command and --skip {read}")
    assert 0 < read == table(out)["delivered"] == hive.stats().events
