"""What is said once about a group of events, and how it ended. The batcher is a fake that writes down."""

import contextvars
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from msgspec import Raw, Struct

from honeyhive_batcher.core.encoding import Encoded
from honeyhive_batcher.core.model import GroupKey
from honeyhive_batcher.session import Session, bound_session, current


class Outputs(Struct):
    answer: str


class Owner:
    """Encodes with the standard library and keeps what it is given."""

    def __init__(self) -> None:
        self.closed: list[tuple[GroupKey, Encoded, bytes]] = []

    def encode_session(self, fields: Mapping[str, Any]) -> bytes:
        def default(value: Any) -> Any:
            return json.loads(bytes(value)) if isinstance(value, Raw) else {"answer": value.answer}

        return json.dumps(fields, default=default).encode()

    def close_session(self, key: GroupKey, update: Encoded, properties: bytes) -> object:
        self.closed.append((key, update, properties))
        return None

    def session(self, *, with_events: bool = True, **properties: Any) -> Session:
        made = Session(self, properties, lambda: "new-id")
        made.has_events = with_events
        return made


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.mark.parametrize(
    ("given", "session_id"), [({}, "new-id"), ({"session_id": "mine"}, "mine"), ({"session_id": 5}, "5")]
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
    assert owner.session(session_id=nothing).session_id == "new-id"


def test_the_callers_properties_are_not_changed(owner: Owner) -> None:
    properties = {"session_name": "n"}
    Session(owner, properties, lambda: "new-id")
    assert properties == {"session_name": "n"}


def test_a_session_that_did_not_change_sends_nothing_when_it_ends(owner: Owner) -> None:
    session = owner.session(outputs={"a": 1}, error="e", metadata={})
    key = session.key
    session.close()
    assert owner.closed == []
    assert session.key is key


def test_what_the_application_does_to_its_own_objects_later_is_not_sent(owner: Owner) -> None:
    question = {"question": "first"}
    session = owner.session(inputs=question)
    question["question"] = "second"
    session.outputs = {"answer": 1}
    session.close()
    ((_, _, properties),) = owner.closed
    assert json.loads(properties)["inputs"] == {"question": "first"}


def test_what_was_set_is_sent_when_it_ends(owner: Owner) -> None:
    session = owner.session(session_name="n", metadata={"a": 1})
    key = session.key
    session.outputs = {"b": 2}
    session.metrics = {"c": 3}
    session.feedback = {"d": 4}
    session.error = "no"
    session.user_properties = {"e": 5}
    session.close()
    ((closed, update, properties),) = owner.closed
    ends = {
        "outputs": {"b": 2},
        "metrics": {"c": 3},
        "feedback": {"d": 4},
        "error": "no",
        "metadata": {"a": 1},
        "user_properties": {"e": 5},
    }
    assert closed is key
    assert json.loads(properties) == {"session_name": "n", "session_id": "new-id", **ends}
    assert json.loads(update.data) == {"event_id": "new-id", **ends}
    assert update.event_id == "new-id"
    assert session.key is not key
    assert session.key.properties == properties


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
    ((_, update, properties),) = owner.closed
    assert json.loads(properties)["outputs"] == sent
    assert json.loads(update.data)["outputs"] == sent


def test_a_session_without_events_is_never_sent(owner: Owner) -> None:
    session = owner.session(with_events=False)
    session.outputs = {"a": 1}
    session.close()
    assert owner.closed == []
    assert json.loads(session.key.properties)["outputs"] == {"a": 1}


def test_a_session_ends_once(owner: Owner) -> None:
    session = owner.session()
    session.outputs = {"a": 1}
    session.close()
    session.outputs = {"a": 2}
    session.close()
    assert len(owner.closed) == 1


def test_sessions_are_bound_inside_each_other(owner: Owner) -> None:
    outer, inner = owner.session(), owner.session()
    assert current.get() == ()
    with outer:
        assert current.get() == (outer,)
        with inner as bound:
            assert bound is inner
            assert current.get() == (outer, inner)
            assert inner.owner is owner
        assert current.get() == (outer,)
    assert current.get() == ()


def test_an_exception_passes_through_and_ends_the_session(owner: Owner) -> None:
    session = owner.session()
    session.error = "no"
    with pytest.raises(ZeroDivisionError), session:
        raise ZeroDivisionError
    assert len(owner.closed) == 1
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
    assert repr(session) == "<Session new-id closed>"


def test_its_repr_is_one_line_of_what_is_true(owner: Owner) -> None:
    session = owner.session(metadata={"secret": 1})
    assert repr(session) == "<Session new-id open>"
    session.close()
    assert repr(session) == "<Session new-id closed>"


def test_a_session_that_is_entered_within_itself_is_left_as_often(owner: Owner) -> None:
    session, other, stranger = owner.session(), owner.session(), Owner()
    with session, other, session:
        assert bound_session(owner, {}) is session
        assert bound_session(stranger, {}) is None
    assert current.get() == ()
