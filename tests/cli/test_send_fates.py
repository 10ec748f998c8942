"""What became of every line, how far a run is, and when it has to stop."""

import io
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from honeyhive_batcher.cli import send
from honeyhive_batcher.cli.screen import PlainScreen
from honeyhive_batcher.cli.send import _settings
from honeyhive_batcher.cli.send.fates import Fates, ranges
from honeyhive_batcher.cli.send.pace import Pace
from honeyhive_batcher.cli.send.rejects import Rejects
from honeyhive_batcher.cli.send.sending import Sending
from honeyhive_batcher.cli.send.source import Source
from honeyhive_batcher.cli.send.summary import how_to_go_on, unconfirmed_lines
from honeyhive_batcher.config import BatchLimits, Config, QueueLimits
from honeyhive_batcher.core.intake import Intake

Said = list[tuple[int, str]]


@pytest.fixture
def said() -> Said:
    """What was reported: line numbers and reasons."""
    return []


@pytest.fixture
def fates(tmp_path: Path, said: Said) -> Iterator[Fates]:
    rejects = Rejects(tmp_path / "r.jsonl", numbered=True)
    yield Fates(rejects, lambda number, reason: said.append((number, reason)), lambda: "HTTP 400")
    rejects.close()


def test_every_line_has_one_fate_also_when_lines_share_an_id(
    fates: Fates, said: Said, tmp_path: Path
) -> None:
    for number, event_id in enumerate(["a", "b", "a", "c", "d", "e"], 1):
        fates.put(event_id, number, b"line %d" % number)
        fates.read = number
    fates.on_delivered(["a", "b"])
    assert (fates.pending, fates.settled_through()) == (4, 2)
    fates.on_dropped(["a"], "rejected")
    assert said == [(3, "rejected by the server (last error: HTTP 400)")]
    fates.on_unconfirmed(["d"])
    fates.on_dropped(["e"], "shutdown")
    assert fates.settled_through() == 3
    fates.on_delivered(["c"])
    assert fates.settled_through() == 4
    assert (fates.delivered, fates.rejected, fates.unconfirmed, fates.not_sent, fates.pending) == (
        3,
        1,
        [5],
        1,
        0,
    )
    assert (tmp_path / "r.jsonl").read_bytes() == b"line 3\n"
    assert how_to_go_on(fates) == ("the first 4 lines are done; go on with the same command and --skip 4")


def test_the_line_last_put_is_the_one_that_is_taken_back(fates: Fates, said: Said) -> None:
    for number in (1, 2):
        fates.put("same", number, b"%d" % number)
    fates.read = 2
    fates.reject_put("same", "too large")
    assert said == [(2, "too large")]
    assert fates.settled_through() == 0
    fates.on_dropped(["same"], "too_large")
    assert said[1:] == [(1, "too large for the server (last error: HTTP 400)")]
    assert fates.settled_through() == 2


def test_lines_done_beyond_the_first_ones_are_told(fates: Fates) -> None:
    for number in (1, 2, 3):
        fates.put(str(number), number, b"")
    fates.read = 3
    fates.on_delivered(["2", "3"])
    assert how_to_go_on(fates) == (
        "the first line is not done: send all of it again "
        "(2 lines after them are done as well and would be sent again)"
    )


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([7], "7"), ([3, 1, 2], "1-3"), ([1, 3, 4, 9], "1, 3-4, 9"), ([1, 2, 4], "1-2, 4")],
)
def test_line_numbers_are_told_as_ranges(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


def test_very_many_unconfirmed_lines_are_told_in_part(fates: Fates) -> None:
    fates.unconfirmed = list(range(1, 10_000, 2))
    text = unconfirmed_lines(fates)
    assert len(text) < 500
    assert text.endswith(" and more")


def test_progress_is_told_by_the_bytes_that_are_settled(fates: Fates, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 1000)
    source = Source(str(path))
    pace = Pace(source, fates, started_at=100.0)
    assert pace.text(100.0, None) == "0 delivered  0 events/s  0%"
    source._raw.count = 400
    fates.read = fates.skipped = 10
    pace.skipped()
    source._raw.count, fates.read, fates.pending, fates.delivered, fates.rejected = 800, 20, 5, 5, 1
    assert pace.fraction() == pytest.approx(0.6)
    # A fifth of the file in 4 s, after two fifths were skipped: two fifths are left.
    assert pace.text(104.0, "HTTP 503") == (
        "5 delivered  1 events/s  60%  ETA 0:00:08  1 rejected  waiting for the server (HTTP 503)"
    )
    source.close()


def test_without_a_size_there_is_no_percentage(fates: Fates, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    source = Source(str(tmp_path / "empty"))
    source.close()
    pace = Pace(source, fates, 0.0)
    assert (pace.fraction(), pace.text(3600.0, None)) == (None, "0 delivered  0 events/s")


# When to stop.


@pytest.fixture
def sending(tmp_path: Path) -> Sending:
    (tmp_path / "f").touch()
    source = Source(str(tmp_path / "f"))
    source.close()
    rejects = Rejects(tmp_path / "r.jsonl", numbered=True)
    settings = {"test_mode": True, "base_url": "https://hive.example"}
    return Sending(source, rejects, PlainScreen(io.StringIO()), skip=0, wait=10.0, settings=settings)


AMISS = {"held": 5, "endpoint": "backing_off", "last_error": "HTTP 503"}


def stops_after(sending: Sending, seconds: float, **now: Any) -> str | None:
    """Return what stops a run in which things stand like this for so long."""
    plain = Intake(QueueLimits(), BatchLimits()).statistics()
    began_at = time.monotonic()
    assert sending._reason_to_stop(plain, began_at) is None
    stop = sending._reason_to_stop(msgspec.structs.replace(plain, **now), began_at + seconds)
    return None if stop is None else stop.sentence


@pytest.mark.parametrize(
    ("seconds", "now"),
    [
        (10.0, AMISS),
        (11.0, {**AMISS, "delivered": 1}),  # slowly, but it takes them
        (11.0, {**AMISS, "held": 0}),  # nothing to be taken
        (99.0, {"held": 5, "endpoint": "healthy", "in_flight": 1}),
        (99.0, {"held": 5, "endpoint": "unknown", "in_flight": 0}),  # they still wait for others
    ],
)
def test_it_goes_on_while_the_server_may_still_take_something(
    sending: Sending, seconds: float, now: dict[str, Any]
) -> None:
    assert stops_after(sending, seconds, **now) is None


@pytest.mark.parametrize(
    ("seconds", "now", "sentence"),
    [
        (10.1, AMISS, "hive.example has taken nothing for 10 s (HTTP 503); check the network and "),
        (10.1, {"held": 5, "in_flight": 1}, "hive.example has taken nothing for 10 s (no answer); check"),
        (
            0.0,
            {"endpoint": "held", "last_error": "HTTP 403"},
            "hive.example answers HTTP 403: the API key",
        ),
        (
            0.0,
            {"dropped": {"internal": 1}, "last_error": "internal error (KeyError)"},
            "the batcher failed (internal error (KeyError)); this is a bug of honeyhive_batcher",
        ),
    ],
)
def test_it_stops_when_going_on_is_in_vain(
    sending: Sending, seconds: float, now: dict[str, Any], sentence: str
) -> None:
    stopped_by = stops_after(sending, seconds, **now)
    assert stopped_by is not None
    assert stopped_by.startswith(sentence)


def test_progress_of_the_server_starts_the_wait_anew(sending: Sending) -> None:
    plain = Intake(QueueLimits(), BatchLimits()).statistics()
    began_at = time.monotonic()
    for delivered, seconds, stops in ((0, 9, False), (1, 18, False), (1, 27, False), (1, 29, True)):
        now = msgspec.structs.replace(plain, delivered=delivered, **AMISS)
        assert (sending._reason_to_stop(now, began_at + seconds) is not None) == stops


@pytest.mark.parametrize(
    ("environ", "retries", "elapsed"),
    [
        ({}, 1000, 200.0),
        ({"HH_MAX_RETRIES": "2", "HH_BATCHER_MAX_ELAPSED": "3"}, 2, 3.0),
    ],
)
def test_the_time_to_wait_decides_unless_the_environment_says_more(
    environ: dict[str, str], retries: int, elapsed: float
) -> None:
    arguments = ArgumentParser()
    send.add_parser(arguments.add_subparsers())
    given = _settings(arguments.parse_args(["send", "-", "--wait", "100", "--api-key", "k"]), environ)
    retry = Config.from_env(environ, **given).retry
    assert (retry.max_retries, retry.max_elapsed) == (retries, elapsed)
