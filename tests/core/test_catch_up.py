"""How fast a backlog may leave when an outage is over."""

import pytest

from honeyhive_batcher.core.catch_up import CatchUp


def catching_up(*, length: float = 60.0, waiting: int = 100, jitter: float = 0.0) -> CatchUp:
    pace = CatchUp(lambda: jitter)
    pace.begin(now=1000.0, length=length, waiting=waiting, sent=1, accepted=500)
    return pace


def test_nothing_is_held_back_before_the_first_outage() -> None:
    assert CatchUp(lambda: 0.5).opens_at(10**6) == float("-inf")


def test_the_backlog_leaves_evenly_in_a_time_that_goes_with_the_outage() -> None:
    pace = catching_up(length=60.0)
    assert pace.ends_at == 1000.0 + 2.4 * 60.0
    instants = []
    for _ in range(100):
        instants.append(pace.opens_at(500))
        pace.begun(1, 500)
    assert instants == pytest.approx([1000.0 + 1.44 * number for number in range(100)])


@pytest.mark.parametrize(
    ("length", "waiting", "seconds"),
    [(1.0, 100, 2.4), (86_400.0, 100, 160.0), (60.0, 4, 10.0), (60.0, 0, 0.0)],
)
def test_it_takes_no_longer_than_it_is_worth(length: float, waiting: int, seconds: float) -> None:
    assert catching_up(length=length, waiting=waiting).ends_at == pytest.approx(1000.0 + seconds)


def test_a_small_backlog_takes_no_longer_than_its_batches_are_worth() -> None:
    for waiting, sent, seconds in [(10, 2, 12.5), (1, 1, 2.5)]:
        pace = CatchUp(lambda: 0.0)
        pace.begin(now=1000.0, length=60.0, waiting=waiting, sent=sent, accepted=500)
        assert pace.ends_at == 1000.0 + seconds
        pace.begun(sent, 500)
        assert pace.opens_at(500) == (1000.0 if sent == waiting else 1000.0 + seconds * sent / waiting)


def test_what_is_accepted_meanwhile_comes_on_top() -> None:
    pace = catching_up()
    for accepted in range(501, 600):
        pace.begun(1, accepted)
        assert pace.opens_at(accepted) == 1000.0


def test_nothing_is_held_back_beyond_the_end() -> None:
    pace = catching_up()
    pace.begun(10_000, 99_000)
    assert pace.opens_at(500) == pace.ends_at == 1144.0


def test_it_is_over_as_soon_as_nothing_waits_any_more() -> None:
    pace = catching_up(jitter=0.5)
    pace.begun(99, 500)
    assert pace.ends_at > 1000.0
    pace.begun(10, 510)
    assert pace.ends_at > 1000.0
    pace.begun(1, 510)
    assert pace.opens_at(600) == pace.ends_at == 1000.0


def test_chance_keeps_clients_from_going_on_and_from_ending_at_once() -> None:
    pace = catching_up(jitter=0.5)
    assert pace.ends_at == pytest.approx(1000.0 + 144.0 * 0.975)
    assert pace.opens_at(500) == pytest.approx(1000.0 + 1.44 * 0.975)


def test_chance_holds_back_the_first_by_up_to_two_batches_of_any_size() -> None:
    pace = CatchUp(lambda: 0.5)
    pace.begin(now=1000.0, length=60.0, waiting=10, sent=2, accepted=500)
    assert pace.opens_at(500) == pytest.approx(1000.0 + 12.5 * 0.975 * 2 / 10)
    pace = CatchUp(lambda: 0.5)
    pace.begin(now=1000.0, length=60.0, waiting=1, sent=1, accepted=500)
    assert pace.opens_at(500) == pace.ends_at


def test_another_outage_before_the_end_does_not_bring_the_end_nearer() -> None:
    pace = catching_up()
    pace.begin(now=1010.0, length=1.0, waiting=90, sent=1, accepted=500)
    assert pace.ends_at == pytest.approx(1144.0)


def test_hurry_lets_the_rest_go() -> None:
    pace = catching_up()
    pace.begun(50, 500)
    pace.hurry()
    assert pace.opens_at(500) == pace.ends_at == 1000.0
