"""A sample keeps sessions whole, is the same everywhere, and is no loss."""

import asyncio
import subprocess
import sys
import uuid
from typing import Any

import msgspec
import pytest

from honeyhive_batcher import Admission, Batcher, BlockingBatcher, Session
from honeyhive_batcher.runtime.seams import Seams
from honeyhive_batcher.sampling import Sample
from honeyhive_batcher.testing import capture
from tests.fakes import FakeTransport, check_ledger, make_batcher
from tests.virtual_time import run_virtually

NAMES = [str(uuid.UUID(int=number)) for number in range(20_000)]


def unlucky() -> float:
    raise AssertionError("chance was asked")


def batcher_of(rate: float, chance: float | None = None) -> Batcher:
    seams = Seams(chance=unlucky if chance is None else lambda: chance)
    return Batcher(api_key="hh_test", sample_rate=rate, _seams=seams)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.25, 0.5, 0.99])
def test_it_keeps_the_share_that_was_asked_for(rate: float) -> None:
    sample = Sample(rate, unlucky)
    assert sum(map(sample.keeps, NAMES)) / len(NAMES) == pytest.approx(rate, abs=0.011)


def test_what_a_rate_keeps_every_higher_one_keeps_too() -> None:
    kept = [{name for name in NAMES if Sample(rate, unlucky).keeps(name)} for rate in (0, 0.1, 0.3, 0.9)]
    assert kept[0] == set()
    assert kept[1] < kept[2] < kept[3]


def test_it_is_the_same_in_every_process() -> None:
    source = (
        "from honeyhive_batcher.sampling import Sample\n"
        "sample = Sample(0.5, float)\n"
        "print([n for n in range(200) if sample.keeps(f'session {n}\\ud800')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "1"},
    )
    sample = Sample(0.5, unlucky)
    assert done.stdout.strip() == str([n for n in range(200) if sample.keeps(f"session {n}\ud800")])


def test_a_name_is_sampled_by_itself_and_what_has_none_by_chance() -> None:
    drawn: list[float] = [0.49, 0.5, 0.0]
    sample = Sample(0.5, lambda: drawn.pop(0))
    assert [sample.keeps(None) for _ in range(3)] == [True, False, True]


def test_all_events_of_a_session_are_sent_or_none_however_they_name_it() -> None:
    batcher = batcher_of(0.5)
    answers = set()
    for number in range(40):
        session = batcher.session(session_id=uuid.UUID(int=number))
        with capture():
            answer = {
                batcher.push({"model": "m"}, session=session),
                batcher.push({"model": "m", "event_id": "its own"}, session=session),
                batcher.push({"session_id": str(uuid.UUID(int=number))}),
                batcher.push({"session_id": uuid.UUID(int=number), "event_id": "its own"}),
                in_session(batcher, session),
            }
        assert len(answer) == 1
        answers |= answer
    assert answers == {Admission.ACCEPTED, Admission.SAMPLED}


def in_session(batcher: Batcher, session: Session) -> Admission:
    with session:
        return batcher.push({"model": "m"})


def test_without_a_session_the_events_own_id_decides() -> None:
    batcher = batcher_of(0.5)
    sample = Sample(0.5, unlucky)
    with capture():
        for name in NAMES[:50]:
            assert bool(batcher.push({"event_id": name})) is sample.keeps(name)


class Strange(dict[str, Any]):
    def get(self, *_: object) -> Any:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "event", [{"model": "m"}, {"event_id": None, "session_id": ""}, Strange(), 7], ids=repr
)
def test_without_a_name_chance_decides(event: Any) -> None:
    assert batcher_of(0.5, chance=0.5).push(event) is Admission.SAMPLED
    with capture():
        assert batcher_of(0.5, chance=0.4).push(event) is not Admission.SAMPLED
    assert batcher_of(0.5, chance=0.5).statistics().callback_errors == 0


def test_what_is_not_in_the_sample_is_not_looked_at() -> None:
    batcher = Batcher(api_key="hh_test", sample_rate=0, before_send=lambda _: 1 / 0)
    assert batcher.push({"model": "m"}) is Admission.SAMPLED
    assert batcher.statistics().callback_errors == 0


def test_a_session_that_is_not_in_the_sample_does_not_come_at_its_end_either() -> None:
    async def main() -> None:
        transport = FakeTransport()
        async with make_batcher(transport, sample_rate=0) as batcher:
            with batcher.session(session_name="s") as session:
                assert await batcher.put({"model": "m"}) is Admission.SAMPLED
                session.outputs = {"a": 1}
            assert (await batcher.flush()).ok
        assert transport.sent == []
        assert check_ledger(batcher).refused == {"sampled": 1}

    run_virtually(main)


def test_it_is_no_loss_and_wakes_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        batcher = make_batcher(FakeTransport(), sample_rate=0)
        async with batcher:
            await asyncio.sleep(1)
            woken = []
            batcher._intake.wake = lambda: woken.append(1)
            for _ in range(3):
                assert not batcher.push({"model": "m"})
                await asyncio.sleep(1000)
            assert woken == []
        assert check_ledger(batcher).refused == {"sampled": 3}

    run_virtually(main)
    assert [record.getMessage() for record in caplog.records if "lost:" in record.getMessage()] == []


def test_a_blocking_batcher_says_so_too() -> None:
    batcher = BlockingBatcher(test_mode=True, sample_rate=0)
    with batcher:
        assert batcher.put({"model": "m"}) is Admission.SAMPLED
    assert batcher.statistics().refused == {"sampled": 1}


def test_a_closed_batcher_says_that_it_is_closed() -> None:
    batcher = batcher_of(0)
    asyncio.run(batcher.aclose())
    assert batcher.push({"model": "m"}) is Admission.CLOSED


def test_at_the_full_rate_nobody_is_asked() -> None:
    batcher = batcher_of(1.0)
    assert batcher._gate is None
    assert batcher.push({"model": "m"})
    assert msgspec.structs.asdict(batcher.statistics())["refused"] == {}
    batcher._lifecycle.abandon()
