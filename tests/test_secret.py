"""A secret is given out by one method, and by nothing that shows, copies or dumps objects."""

import copy
import json
import pickle

import msgspec
import pytest

from honeyhive_batcher import Batcher, BlockingBatcher, Config, EndpointSettings
from honeyhive_batcher.config import ENVIRONMENT
from honeyhive_batcher.errors import ConfigError
from honeyhive_batcher.secret import Secret, seal

KEY = "hh_very_secret_key"


def test_it_equals_another_of_the_same_value_and_nothing_else() -> None:
    assert Secret(KEY) == Secret(KEY)
    assert hash(Secret(KEY)) == hash(Secret(KEY))
    assert Secret(KEY) != Secret("other")
    assert Secret(KEY) != KEY


def test_it_is_its_own_copy() -> None:
    secret = Secret(KEY)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret
    assert copy.deepcopy(Config.of(api_key=secret)) == Config.of(api_key=KEY)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled_alone_or_in_a_config(protocol: int) -> None:
    for holder in (Secret(KEY), Config.of(api_key=KEY)):
        with pytest.raises(TypeError, match="a secret is not pickled"):
            pickle.dumps(holder, protocol)


def test_no_encoder_takes_it_for_text() -> None:
    config = Config.of(api_key=KEY)
    for encode in (msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins):
        with pytest.raises(TypeError):
            encode(config)
    with pytest.raises(TypeError):
        json.dumps(msgspec.structs.asdict(config.endpoint))
    assert b'"api_key":"hh_****"' in msgspec.json.encode(config, enc_hook=str)


def test_what_dumps_all_attributes_comes_upon_none_that_shows_it() -> None:
    secret = Secret(KEY)
    assert not hasattr(secret, "__dict__")
    assert KEY not in repr([getattr(secret, name) for name in dir(secret)])


@pytest.mark.parametrize("key", [KEY, KEY.encode(), [KEY], {KEY: KEY}, Secret(KEY)])
def test_a_key_of_any_type_is_sealed_in_place(key: object) -> None:
    settings = {"api_key": key, "project": "p"}
    seal(settings)
    assert isinstance(settings["api_key"], Secret)
    assert KEY not in repr(settings)
    assert settings["project"] == "p"


def test_no_key_is_left_alone() -> None:
    for settings in ({}, {"api_key": None}):
        before = dict(settings)
        seal(settings)
        assert settings == before


def test_it_is_revealed_as_plain_text_whatever_it_was_given_as() -> None:
    class Text(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "something else"

    key = EndpointSettings(api_key=Text(KEY)).api_key
    assert isinstance(key, Secret)
    assert key.reveal() == KEY
    assert type(key.reveal()) is str


def test_no_frame_of_ours_shows_the_key_when_a_setting_is_refused() -> None:
    """Error reporters show the variables of every frame of a traceback."""

    def shown(given: dict[str, str] | None, **settings: str) -> str:
        with pytest.raises(ConfigError) as caught:
            Config.from_env(given, **settings)
        frames = [entry.frame for entry in caught.traceback]
        ours = [frame for frame in frames if "honeyhive_batcher" in frame.f_globals["__name__"]]
        assert len(ours) > 2
        return repr([frame.f_locals for frame in ours])

    assert KEY not in shown({"HH_API_KEY": KEY}, base_url="ftp://h")
    assert KEY not in shown({"HH_API_KEY": KEY + "\n x"})
    assert KEY not in shown({}, api_key=KEY, base_url="ftp://h")
    assert KEY not in shown({"HH_BATCH_SIZE": "1"}, api_key=KEY, base_url="ftp://h")


def test_the_ingestion_key_still_wins() -> None:
    environ = dict.fromkeys(ENVIRONMENT["api_key"], "other") | {"HH_INGESTION_API_KEY": KEY}
    assert Config.from_env(environ).endpoint.api_key == Secret(KEY)


def test_no_frame_of_a_batcher_that_could_not_be_made_shows_the_key() -> None:
    for make in (Batcher, BlockingBatcher, Batcher.from_env, BlockingBatcher.from_env):
        with pytest.raises(ConfigError) as raised:
            make(api_key=KEY, max_in_flight=0)
        trace = raised.value.__traceback__
        assert trace is not None
        trace = trace.tb_next  # the first frame is this one
        while trace is not None:
            assert KEY not in repr(trace.tb_frame.f_locals), trace.tb_frame
            trace = trace.tb_next
