"""Bar 9: what a failed request can have become, at every point of failure and under both policies."""

import pytest

from tests.reliability import ambiguity
from tests.reliability.ambiguity import IDS, Class, Outcome, Policy, faults_of, points
from tests.reliability.rows import Size, assert_rows


def test_every_point_of_failure_under_both_policies() -> None:
    assert_rows(ambiguity.rows, Size.QUICK)


@pytest.mark.soak
def test_every_point_of_failure_ten_times() -> None:
    assert_rows(ambiguity.rows, Size.FULL)


def test_points_have_names_of_their_own() -> None:
    names = [point.name for point in points()]
    assert len(set(names)) == len(names) >= 14


def outcome(**changes: object) -> Outcome:
    """Return what a good retry of an ambiguous request that had arrived comes to."""
    usual = {
        "seen": Class.AMBIGUOUS,
        "cause": "the connection broke",
        "stored": dict.fromkeys(IDS, 2),
        "delivered": frozenset(IDS),
        "unconfirmed": frozenset(),
        "dropped": frozenset(),
        "fates": len(IDS),
        "resends": 1,
        "bodies": 1,
        "contents": 1,
        "balanced": True,
    }
    return Outcome(**{**usual, **changes})  # type: ignore[arg-type]  # of these fields


UNCONFIRMED = {"delivered": frozenset(), "unconfirmed": frozenset(IDS)}
ONE = {next(iter(IDS))}


@pytest.mark.parametrize(
    ("policy", "changes", "found"),
    [
        ("retry", {}, []),
        ("retry", {"seen": Class.UNSENT}, ["class"]),
        ("retry", {"delivered": frozenset(IDS - ONE), "dropped": frozenset(ONE)}, ["claim"]),
        ("retry", {"fates": len(IDS) + 1}, ["claim"]),
        ("retry", {"balanced": False}, ["claim"]),
        ("retry", {"stored": dict.fromkeys(IDS - ONE, 1)}, ["server"]),
        ("retry", {"stored": dict.fromkeys(IDS, 3)}, ["duplicates"]),
        ("retry", {"bodies": 2}, ["bodies"]),
        ("retry", {"contents": 2}, ["bodies"]),
        ("drop", {**UNCONFIRMED, "stored": dict.fromkeys(IDS, 1)}, []),
        ("drop", {**UNCONFIRMED, "stored": dict.fromkeys(IDS, 2)}, ["duplicates"]),
        ("drop", {"stored": dict.fromkeys(IDS, 1)}, ["claim"]),
        ("drop", {**UNCONFIRMED, "stored": {}}, ["server"]),
    ],
)
def test_whatever_is_wrong_is_found(policy: Policy, changes: dict[str, object], found: list[str]) -> None:
    (point,) = [point for point in points() if point.name == "RESET BODY"]
    assert list(faults_of(point, policy, outcome(**changes))) == found
