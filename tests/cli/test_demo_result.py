"""What a demo says at its end, also about what never happens."""

from typing import Any

import msgspec
import pytest

from honeyhive_batcher import Batcher
from honeyhive_batcher.cli.demo.result import Arrived, arrived, complaint, equations, triggers, verdict
from honeyhive_batcher.config import BatchLimits, QueueLimits
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.core.ledger import Statistics
from honeyhive_batcher.testing import collector


def statistics(**changes: Any) -> Statistics:
    plain = Intake(QueueLimits(), BatchLimits()).statistics()
    return msgspec.structs.replace(plain, **changes)


ALL_THERE = Arrived(events=9, duplicates=0, endings=1, missing=0)
GOOD = {"offered": 10, "accepted": 10, "delivered": 10}


def test_nothing_is_complained_about_when_all_is_there() -> None:
    assert complaint(statistics(**GOOD), ALL_THERE) is None
    assert verdict(statistics(**GOOD), ALL_THERE).endswith("each of the 10 delivered, exactly once")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"offered": 11}, "the numbers do not add up: this is a bug of honeyhive_batcher"),
        ({"held": 1}, "the numbers do not add up: this is a bug of honeyhive_batcher"),
        (
            {"offered": 13, "refused": {"queue_full": 3}},
            "not everything was delivered: 3 refused (queue_full); last error: None",
        ),
        (
            {"offered": 16, "accepted": 16, "dropped": {"rejected": 2}, "unconfirmed": 3, "held": 1},
            (
                "not everything was delivered: 2 dropped (rejected), "
                "3 unconfirmed (sent, but no answer came), 1 held; last error: None"
            ),
        ),
    ],
)
def test_what_is_lost_is_complained_about(changes: dict[str, Any], sentence: str) -> None:
    assert complaint(statistics(**{**GOOD, **changes}), ALL_THERE) == sentence


def test_delivered_events_that_the_collector_lacks_are_complained_about() -> None:
    lacking = Arrived(events=8, duplicates=0, endings=1, missing=1)
    assert complaint(statistics(**GOOD), lacking) == (
        "1 events count as delivered, and the collector does not have them"
    )
    assert verdict(statistics(**GOOD), lacking) == "The collector has 8 events and the ends of 1 sessions"


def test_equations_that_do_not_hold_say_so() -> None:
    assert equations(statistics(offered=2, accepted=1, delivered=1))[0] == (
        "offered 2 != accepted 1 + refused 0"
    )


def test_requests_that_no_cut_and_no_retry_explains_are_parts_of_batches() -> None:
    sent = statistics(requests=10, retries=2, batches={"full": 3, "flush": 1})
    assert triggers(sent, max_events=5, interval=1) == [
        ("full: it had 5 events", "3"),
        ("flush at the end", "1"),
        ("sent again", "2"),
        ("part of a refused batch", "4"),
    ]


@pytest.mark.anyio
async def test_what_arrived_is_looked_up_by_id_and_by_what_a_session_ended_with() -> None:
    async with collector() as hive, Batcher(**hive.settings()) as batcher:
        with batcher.session(session_id="ended") as session:
            batcher.push({"model_name": "m", "event_id": "there"}, session=session)
            session.outputs = {"answer": "yes"}
        with batcher.session(session_id="otherwise") as session:
            batcher.push({"model_name": "m", "event_id": "there too"}, session=session)
        await batcher.flush()
        batcher.push({"model_name": "m", "event_id": "there"})
        await batcher.flush()
        sessions = {"ended": {"outputs": {"answer": "yes"}}, "otherwise": {"outputs": {"answer": "no"}}}
        found = arrived(hive, ["there", "there too", "ended", "otherwise", "lost"], sessions)
    assert found == Arrived(events=2, duplicates=1, endings=1, missing=2)
