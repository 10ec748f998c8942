"""What is said once about a group of events, and how it ended."""

import asyncio
import contextvars
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from msgspec import Struct

from honeyhive_batcher.config import BatchLimits, Defaults, QueueLimits
from honeyhive_batcher.core.fragment import Fragment
from honeyhive_batcher.core.intake import Intake
from honeyhive_batcher.session import Session, Sessions, bound_session, current
from tests.fakes import NEW_ID, FixedIds


class Outputs(Struct):
    answer: str


class Owner:
    """The sessions of a batcher, and the queue in which their ends are to be found."""

    def __init__(self) -> None:
        self.intake = Intake(QueueLimits(), BatchLimits())
        self.sessions = Sessions(self.intake, Defaults(), max_bytes=1000, ids=FixedIds(), clock=lambda: 0.0)
        self._ends: list[Fragment] = []

    @property
    def ends(self) -> list[Fragment]:
        """The ends that were queued so far."""
        while (batch := self.intake.cut(1e9)) is not None:
            self._ends += batch.fragments
        return self._ends

    def session(self, *, with_events: bool = True, **properties: Any) -> Session:
        made = self.sessions.make(None, properties)
        made.taken_by = self.intake if with_events else None
        return made


class Hostile:
    """An object that nothing can be asked."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __bool__ = __iter__ = __len__ = keys = __str__


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.mark.parametrize(
    ("given", "session_id"), [({}, NEW_ID), ({"session_id": "mine"}, "mine"), ({"session_id": 5}, "5")]
)
def test_a_session_has_the_id_it_brings_or_a_new_one(
    owner: Owner, given: dict[str, Any], session_id: str
) -> None:
    session = owner.session(**given)
    assert session.session_id == session_id
    assert session.key.session_id == session_id
    assert json.loads(session.key.properties) == {"session_id": session_id}


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_empty_id_is_as_good_as_none(owner: Owner, nothing: object) -> None:
    assert owner.session(session_id=nothing).session_id == NEW_ID


def test_the_callers_properties_are_not_changed(owner: Owner) -> None:
    properties = {"session_name": "n"}
    owner.sessions.make(properties, {"session_id": "s"})
    assert properties == {"session_name": "n"}


def test_a_session_that_did_not_change_sends_nothing_when_it_ends(owner: Owner) -> None:
    session = owner.session(outputs={"a": 1}, error="e", metadata={})
    key = session.key
    session.close()
    assert owner.ends == []
    assert session.key is key


def test_what_the_application_does_to_its_own_objects_later_is_not_sent(owner: Owner) -> None:
    question = {"question": "first"}
    session = owner.session(inputs=question)
    question["question"] = "second"
    session.outputs = {"answer": 1}
    session.close()
    (end,) = owner.ends
    assert json.loads(end.closing)["inputs"] == {"question": "first"}


def test_what_was_set_is_sent_when_it_ends(owner: Owner) -> None:
    session = owner.session(session_name="n", metadata={"a": 1})
    key = session.key
    session.outputs = {"b": 2}
    session.metrics = {"c": 3}
    session.feedback = {"d": 4}
    session.error = "no"
    session.user_properties = {"e": 5}
    session.close()
    (end,) = owner.ends
    ends = {
        "outputs": {"b": 2},
        "metrics": {"c": 3},
        "feedback": {"d": 4},
        "error": "no",
        "metadata": {"a": 1},
        "user_properties": {"e": 5},
    }
    assert end.key is key
    assert json.loads(end.closing) == {"session_name": "n", "session_id": NEW_ID, **ends}
    assert json.loads(end.data) == {"event_id": NEW_ID, **ends}
    assert end.event_id == NEW_ID
    assert session.key is not key
    assert session.key.properties == end.closing


@pytest.mark.parametrize(
    ("outputs", "sent"),
    [
        ("text", {"output": "text"}),
        (["a"], {"output": ["a"]}),
        (0, {"output": 0}),
        ({"a": 1}, {"a": 1}),
        ({}, {}),
        (Outputs("x"), {"answer": "x"}),
    ],
)
def test_outputs_are_an_object(owner: Owner, outputs: object, sent: object) -> None:
    session = owner.session()
    session.outputs = outputs
    session.close()
    (end,) = owner.ends
    assert json.loads(end.closing)["outputs"] == sent
    assert json.loads(end.data)["outputs"] == sent


def test_a_session_without_events_is_never_sent(owner: Owner) -> None:
    session = owner.session(with_events=False)
    session.outputs = {"a": 1}
    session.close()
    assert owner.ends == []
    assert json.loads(session.key.properties)["outputs"] == {"a": 1}


def test_a_session_ends_once(owner: Owner) -> None:
    session = owner.session()
    session.outputs = {"a": 1}
    session.close()
    session.outputs = {"a": 2}
    session.close()
    assert len(owner.ends) == 1


def test_sessions_are_bound_inside_each_other(owner: Owner) -> None:
    outer, inner = owner.session(), owner.session()
    assert current.get() == ()
    with outer:
        assert current.get() == (outer,)
        with inner as bound:
            assert bound is inner
            assert current.get() == (outer, inner)
            assert inner.owner is owner.sessions
        assert current.get() == (outer,)
    assert current.get() == ()


def test_an_exception_passes_through_and_ends_the_session(owner: Owner) -> None:
    session = owner.session()
    session.error = "no"
    with pytest.raises(ZeroDivisionError), session:
        raise ZeroDivisionError
    assert len(owner.ends) == 1
    assert current.get() == ()


def test_a_generator_may_be_closed_in_another_context(owner: Owner) -> None:
    outer, session = owner.session(), owner.session()

    def stream() -> Iterator[int]:
        with session:
            yield 1

    generator = stream()
    with outer:
        contextvars.copy_context().run(next, generator)
        generator.close()  # type: ignore[attr-defined]
        assert current.get() == (outer,)
    assert repr(session) == f"<Session {NEW_ID} closed>"


def test_its_repr_is_one_line_of_what_is_true(owner: Owner) -> None:
    session = owner.session(metadata={"secret": 1})
    assert repr(session) == f"<Session {NEW_ID} open>"
    session.close()
    assert repr(session) == f"<Session {NEW_ID} closed>"


def test_a_session_that_is_entered_within_itself_is_left_as_often(owner: Owner) -> None:
    session, other, stranger = owner.session(), owner.session(), Owner()
    with session, other, session:
        assert bound_session(owner.sessions, {}) is session
        assert bound_session(stranger.sessions, {}) is None
    assert current.get() == ()


def test_sessions_may_end_in_another_order_than_they_began(owner: Owner) -> None:
    first, second = owner.session(), owner.session()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert current.get() == (second,)
    second.__exit__(None, None, None)
    assert current.get() == ()


def test_an_end_without_a_beginning_ends_the_session(owner: Owner) -> None:
    session = owner.session()
    session.error = "no"
    session.__exit__(None, None, None)
    assert len(owner.ends) == 1
    assert current.get() == ()


@pytest.mark.parametrize("properties", [5, "text", [1], Hostile(), Hostile])
def test_properties_that_are_no_mapping_are_left_out(owner: Owner, properties: Any) -> None:
    session = owner.sessions.make(properties, {"session_name": "n"})
    assert json.loads(session.key.properties) == {"session_name": "n", "session_id": NEW_ID}
    assert owner.intake.statistics().repaired == 1


def test_an_id_that_cannot_be_read_is_as_good_as_none(owner: Owner) -> None:
    assert owner.session(session_id=Hostile()).session_id == NEW_ID


def test_nothing_that_is_set_before_the_end_can_raise(owner: Owner) -> None:
    session = owner.session()
    session.outputs = Hostile()
    session.metadata = {"a": Hostile()}
    session.metrics = {1: float("nan"), "b": Decimal("NaN")}
    session.close()
    (end,) = owner.ends
    assert json.loads(end.data)["metrics"] == {"1": None, "b": None}


def test_an_event_that_cannot_be_asked_for_its_session_gets_the_one_bound_here(owner: Owner) -> None:
    class Secretive(dict[str, object]):
        def get(self, *_: object) -> object:
            raise ZeroDivisionError

    with owner.session() as session:
        assert bound_session(owner.sessions, Secretive()) is session


def test_a_value_that_cancels_whoever_reads_it_costs_the_properties_and_not_the_program(owner: Owner) -> None:
    class Cancelling:
        def model_dump(self) -> object:
            raise asyncio.CancelledError

    session = owner.session(session_id="s", metadata=Cancelling())
    assert json.loads(session.key.properties) == {"session_id": "s"}
    session.outputs = Cancelling()
    session.close()
