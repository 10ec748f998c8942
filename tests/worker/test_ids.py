"""Ids are UUIDs, and nobody else has them: no thread, no run, no forked child."""

import os
import subprocess
import sys
import threading
import uuid

import pytest

from honeyhive_batcher.runtime.ids import IdSource


def test_ids_are_random_uuids_in_their_usual_form() -> None:
    source = IdSource()
    for made in (source.next().decode() for _ in range(100)):
        parsed = uuid.UUID(made)
        assert str(parsed) == made
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


def test_ids_differ_also_between_sources() -> None:
    made = [source.next() for source in (IdSource(), IdSource()) for _ in range(1000)]
    assert len(set(made)) == 2000
    assert len({one[:23] for one in made}) == 2
    assert {len(one) for one in made} == {36}


def test_ids_are_as_long_in_the_most_extreme_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for byte in (b"\x00", b"\xff"):
        monkeypatch.setattr(os, "urandom", lambda size, byte=byte: byte * size)
        source = IdSource()
        made = [source.next() for _ in range(3)]
        assert {len(one) for one in made} == {36}
        assert len(set(made)) == 3


def test_ids_differ_between_threads() -> None:
    source = IdSource()
    made: list[list[bytes]] = [[] for _ in range(8)]

    def make(into: list[bytes]) -> None:
        into.extend(source.next() for _ in range(5000))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for into in made for one in into}) == 40_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_ids_differ_between_a_process_and_its_children() -> None:
    code = (
        "import os\n"
        "from honeyhive_batcher.runtime.ids import ids\n"
        "ids.next()\n"
        "child = os.fork()\n"
        "if child: os.wait()\n"  # one after the other: their lines must not mix
        "print(ids.next().decode(), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    first, second = done.stdout.split()
    assert first[:23] != second[:23]
