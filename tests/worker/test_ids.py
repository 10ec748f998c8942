"""Ids are UUIDs, and nobody else has them: no thread, no run, no forked child."""

import os
import subprocess
import sys
import threading
import uuid

import pytest

from honeyhive_batcher.runtime import ids
from honeyhive_batcher.runtime.ids import IdSource


def test_ids_are_random_uuids_in_their_usual_form() -> None:
    source = IdSource()
    for made in (source() for _ in range(100)):
        parsed = uuid.UUID(made)
        assert str(parsed) == made
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


def test_ids_differ_also_between_sources_and_beyond_the_last_of_a_prefix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ids, "_IDS_PER_PREFIX", 10)
    made = [source() for source in (IdSource(), IdSource()) for _ in range(1000)]
    assert len(set(made)) == 2000
    assert 150 <= len({one[:23] for one in made}) <= 250
    assert {len(one) for one in made} == {36}


def test_ids_differ_between_threads() -> None:
    source = IdSource()
    made: list[list[str]] = [[] for _ in range(8)]

    def make(into: list[str]) -> None:
        into.extend(source() for _ in range(5000))

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
        "from honeyhive_batcher.runtime.ids import new_id\n"
        "new_id()\n"
        "child = os.fork()\n"
        "if child: os.wait()\n"  # one after the other: their lines must not mix
        "print(new_id(), flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    first, second = done.stdout.split()
    assert first[:23] != second[:23]
