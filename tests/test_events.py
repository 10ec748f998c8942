"""What a producer may push."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from honeyhive_batcher import ModelEvent, SessionProperties

CORPUS = (Path(__file__).parent / "data" / "model_events.jsonl").read_bytes().splitlines()

# From the API description, section 1.2: the classic fields, then those since OpenAPI 1.1.0 and 1.9.0.
EVENT_FIELDS = set(
    "project model provider messages response duration usage cost error source event_name "  # noqa: SIM905
    "hyperparameters template template_inputs tools tool_choice response_format "
    "event_id session_id parent_id children_ids config inputs outputs start_time end_time "
    "metadata feedback metrics user_properties model_name model_version".split()
)
SET_BY_THE_SERVER = {"event_type", "project_id"}

# From section 1.3.
SESSION_FIELDS = set(
    "session_name source session_id config inputs outputs error user_properties metadata metrics "  # noqa: SIM905
    "feedback start_time".split()
)


def test_an_event_has_every_documented_field() -> None:
    assert set(ModelEvent.__struct_fields__) == EVENT_FIELDS
    assert ModelEvent.__struct_encode_fields__ == ModelEvent.__struct_fields__


def test_a_session_has_every_documented_field() -> None:
    assert set(SessionProperties.__struct_fields__) == SESSION_FIELDS
    assert SessionProperties.__struct_encode_fields__ == SessionProperties.__struct_fields__


@pytest.mark.parametrize("kind", [ModelEvent, SessionProperties])
def test_a_field_that_is_left_out_is_not_sent(kind: type[msgspec.Struct]) -> None:
    assert msgspec.json.encode(kind()) == b"{}"


@pytest.mark.parametrize("kind", [ModelEvent, SessionProperties])
def test_a_field_that_is_set_is_sent_also_when_it_is_empty(kind: type[msgspec.Struct]) -> None:
    for name in kind.__struct_fields__:
        values: list[object] = [None, "", 0, [], {}]
        for value in values:
            assert json.loads(msgspec.json.encode(kind(**{name: value}))) == {name: value}


@pytest.mark.parametrize("kind", [ModelEvent, SessionProperties])
def test_fields_are_keywords_only_and_unknown_ones_are_a_mistake(kind: Any) -> None:
    with pytest.raises(TypeError):
        kind("positional")
    with pytest.raises(TypeError):
        kind(modell="m")


def test_the_events_of_the_corpus_fit_the_types() -> None:
    """All but what providers really send and the documentation does not have."""
    odd: list[int] = []
    for number, line in enumerate(CORPUS, 1):
        event = json.loads(line)
        assert event.keys() <= EVENT_FIELDS | SET_BY_THE_SERVER
        try:
            typed = msgspec.json.decode(line, type=ModelEvent)
        except msgspec.ValidationError:
            odd.append(number)
            continue
        known = {name: value for name, value in event.items() if name in EVENT_FIELDS}
        assert json.loads(msgspec.json.encode(typed)) == known
    assert set(odd) <= {70}  # line 70 has a cost in words
