"""The one public door, and what comes through it."""

import inspect
import json
import subprocess
import sys
import types
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

import honeyhive_batcher
from honeyhive_batcher.config import SETTINGS
from honeyhive_batcher.errors import BatcherError
from honeyhive_batcher.settings import Settings


def test_everything_in_all_is_there() -> None:
    for name in honeyhive_batcher.__all__:
        assert hasattr(honeyhive_batcher, name)
    assert len(set(honeyhive_batcher.__all__)) == len(honeyhive_batcher.__all__)


def test_everything_that_is_there_is_in_all() -> None:
    public = {
        name
        for name, value in vars(honeyhive_batcher).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public | {"__version__"} == set(honeyhive_batcher.__all__)


@pytest.mark.parametrize("name", [name for name in honeyhive_batcher.__all__ if name != "__version__"])
def test_every_public_class_says_what_it_is(name: str) -> None:
    value = getattr(honeyhive_batcher, name)
    assert inspect.isclass(value) or value is honeyhive_batcher.redact
    assert (value.__doc__ or "").strip()


def test_every_error_has_one_root() -> None:
    errors = [
        value
        for name in honeyhive_batcher.__all__
        if inspect.isclass(value := getattr(honeyhive_batcher, name)) and issubclass(value, Exception)
    ]
    assert len(errors) == 5
    assert all(issubclass(error, BatcherError) for error in errors)


def without_bounds(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def test_the_keyword_arguments_are_the_settings_in_their_order_and_of_their_types() -> None:
    hints = get_type_hints(Settings)
    assert list(hints) == list(SETTINGS)
    for name, kind in SETTINGS.items():
        assert hints[name] == without_bounds(get_type_hints(kind, include_extras=True)[name]), name
    assert Settings.__total__ is False


def test_every_default_is_of_the_type_of_its_setting() -> None:
    hints = get_type_hints(Settings)
    for name, kind in SETTINGS.items():
        field = next(field for field in msgspec.structs.fields(kind) if field.name == name)
        if name == "api_key":  # msgspec does not convert to a Secret
            assert field.default is None
        else:
            assert msgspec.convert(field.default, hints[name]) == field.default, name


def modules_after(statement: str) -> set[str]:
    program = f"import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", program], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_the_import_brings_nothing_but_the_dependencies_and_not_aiohttp() -> None:
    brought = modules_after("import honeyhive_batcher") - modules_after("pass")
    foreign = {name.partition(".")[0] for name in brought} - set(sys.stdlib_module_names)
    # anyio's own dependencies are idna and typing_extensions.
    assert {"honeyhive_batcher", "msgspec"} <= foreign
    assert foreign <= {"honeyhive_batcher", "msgspec", "anyio", "idna", "typing_extensions"}


def test_an_admission_is_true_only_when_the_event_was_accepted() -> None:
    for admission in honeyhive_batcher.Admission:
        assert bool(admission) is (admission.value == "accepted")
    assert len({*honeyhive_batcher.Admission}) == len(honeyhive_batcher.Admission)
