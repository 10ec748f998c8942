"""Settings check themselves, field by field."""

import logging
import math
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from honeyhive_batcher.config import ENVIRONMENT, SETTINGS, Config
from honeyhive_batcher.errors import BatcherError, ConfigError
from honeyhive_batcher.secret import Secret

KEY = "hh_very_secret_key"
TINY = 5e-324


def part_of(setting: str, config: Config) -> object:
    return next(
        getattr(part, setting)
        for name in config.__struct_fields__
        if setting in (part := getattr(config, name)).__struct_fields__
    )


def set_to(setting: str, value: object) -> object:
    return part_of(setting, Config.of(api_key=KEY, **{setting: value}))


# The design's table, and for each number the least that is taken and one below it.
NUMBERS: list[tuple[str, float, float, float]] = [
    ("request_timeout", 30.0, TINY, 0.0),
    ("max_in_flight", 16, 1, 0),
    ("max_queue_events", 10_000, 1, 0),
    ("max_queue_bytes", 64 * 1024 * 1024, 1, 0),
    ("max_batch_events", 100, 1, 0),
    ("max_batch_bytes", 4 * 1024 * 1024, 1024, 1023),
    ("max_event_bytes", 4 * 1024 * 1024, 1, 0),
    ("flush_interval", 1.0, 0.0, -TINY),
    ("max_retries", 5, 0, -1),
    ("max_elapsed", 120.0, 0.0, -TINY),
    ("backoff_base", 0.5, 0.0, -TINY),
    ("backoff_max", 30.0, 0.0, -TINY),
    ("sample_rate", 1.0, 0.0, -TINY),
    ("shutdown_timeout", 5.0, 0.0, -TINY),
]

OTHERS: dict[str, object] = {
    "base_url": "https://api.honeyhive.ai",
    "verify_tls": True,
    "compression": "none",
    "test_mode": False,
    "overflow": "drop_newest",
    "on_ambiguous": "retry",
    "project": None,
    "source": None,
    "event_name": None,
    "session_name": None,
    "capture_content": True,
}


def test_the_tables_here_name_every_setting() -> None:
    assert {name for name, *_ in NUMBERS} | OTHERS.keys() | {"api_key"} == SETTINGS.keys()


@pytest.mark.parametrize(
    ("setting", "default"), [*((name, default) for name, default, *_ in NUMBERS), *OTHERS.items()]
)
def test_the_defaults_are_those_of_the_design(setting: str, default: object) -> None:
    value = part_of(setting, Config.of(api_key=KEY))
    assert value == default
    assert type(value) is type(default)


@pytest.mark.parametrize(("setting", "default", "least", "below"), NUMBERS)
def test_the_least_of_a_number_is_taken_and_what_is_below_is_not(
    setting: str, default: float, least: float, below: float
) -> None:
    assert set_to(setting, least) == least
    assert set_to(setting, least + 1) == least + 1
    with pytest.raises(ConfigError, match=rf"^{setting}={below!r} is not valid: ") as caught:
        set_to(setting, below)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, BatcherError)


@pytest.mark.parametrize("setting", [name for name, *_ in NUMBERS])
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "5", None, True, [1], b"1", Secret("5")], ids=repr
)
def test_a_number_has_to_be_a_finite_one(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{setting}="):
        set_to(setting, value)


@pytest.mark.parametrize(("setting", "default"), [(name, default) for name, default, *_ in NUMBERS])
def test_seconds_may_be_whole_and_counts_have_to_be(setting: str, default: float) -> None:
    if isinstance(default, float):
        assert type(set_to(setting, 1)) is float
    else:
        with pytest.raises(ConfigError, match=rf"^{setting}=2000\.5 "):
            set_to(setting, 2000.5)


@pytest.mark.parametrize(
    ("setting", "right", "wrong"),
    [
        ("overflow", ["drop_newest", "drop_oldest"], ["DROP_OLDEST", "", None, 1]),
        ("on_ambiguous", ["retry", "drop"], ["maybe", "", None]),
        ("verify_tls", [True, False], ["true", 1, None]),
        ("test_mode", [True, False], ["false", 0]),
        ("project", ["p", "", None], [1, b"p"]),
        ("source", ["s", None], [1]),
        ("event_name", ["n", None], [1]),
        ("session_name", ["n", None], [["n"]]),
    ],
)
def test_other_settings_have_to_be_of_their_type(
    setting: str, right: list[object], wrong: list[object]
) -> None:
    for value in right:
        assert set_to(setting, value) == value
    for value in wrong:
        with pytest.raises(ConfigError, match=f"^{setting}="):
            set_to(setting, value)


def test_an_unknown_setting_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'flush_intervall'; .*flush_interval"):
        Config.of(api_key=KEY, flush_intervall=1)


def test_a_config_cannot_be_changed() -> None:
    config = Config.of(api_key=KEY)
    with pytest.raises(AttributeError):
        config.batch.max_batch_events = 0  # type: ignore[misc]  # on purpose
    with pytest.raises(ConfigError):
        msgspec.structs.replace(config.batch, max_batch_events=0)


# The key.


def test_a_key_is_needed_except_in_test_mode() -> None:
    with pytest.raises(ConfigError, match="api_key is missing"):
        Config.of()
    with pytest.raises(ConfigError, match="api_key is missing"):
        Config.of(api_key=None)
    assert Config.of(test_mode=True).endpoint.api_key is None


@pytest.mark.parametrize("key", ["", " ", "two words", "line\nbreak", "é", "\x7f", "tab\t", KEY + "\r\n"])
def test_a_key_has_to_fit_into_a_header_and_is_not_shown(key: str) -> None:
    for given in (key, Secret(key)):
        with pytest.raises(ConfigError) as caught:
            Config.of(api_key=given)
        assert "api_key" in str(caught.value)
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", [b"hh_very_secret_key", [KEY], 5, {"key": KEY}])
def test_a_key_of_a_wrong_type_is_not_shown_either(key: object) -> None:
    with pytest.raises(ConfigError, match=r"^api_key is not valid: ") as caught:
        Config.of(api_key=key)
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_never_shows_itself() -> None:
    config = Config.of(api_key=KEY)
    key = config.endpoint.api_key
    assert isinstance(key, Secret)
    assert key.reveal() == KEY
    assert type(key.reveal()) is str
    shown = [
        repr(key),
        str(key),
        ascii(key),
        f"{key}",
        f"{key!r}",
        f"{key!s:>40}",
        f"{key:>40}",
        format(key),
        "%s %r" % (key, key),  # noqa: UP031
        "{} {!r}".format(key, key),  # noqa: UP032
        repr(config),
        str(config),
        repr(config.endpoint),
        f"{config}",
        repr([key]),
    ]
    for text in shown:
        assert KEY not in text
        assert "hh_****" in text


def test_a_config_may_be_made_from_the_parts_of_another() -> None:
    config = Config.of(api_key=KEY)
    key = config.endpoint.api_key
    assert isinstance(key, Secret)
    again = Config.of(api_key=key, base_url=config.endpoint.base_url)
    assert again == config
    assert isinstance(again.endpoint.api_key, Secret)
    assert again.endpoint.api_key.reveal() == KEY


# The address.


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://api.example.com", "https://api.example.com"),
        ("https://api.example.com/", "https://api.example.com"),
        ("https://api.example.com:8443/prefix/", "https://api.example.com:8443/prefix"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://[::1]:1", "http://[::1]:1"),
        ("HTTPS://API.example.com", "HTTPS://API.example.com"),
    ],
)
def test_an_address_is_kept_without_its_last_slash(
    url: str, kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert set_to("base_url", url) == kept
    assert caplog.records == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "//api.example.com",
        "ftp://api.example.com",
        "https://",
        "https://:443",
        "https://h:99999",
        "https://h:x",
        "https://[::1",
        "https://h/?a=1",
        "https://h/#a",
        "https://h/ä",
        "https://h /",
        "https://h\n",
        "https://h?",
        "https://h#",
        "https://h:0",
        "https://h:",
        "https://a..b",
        "https://a\\b",
        "https://a%0d%0ab",
        "https://[1.2.3.4]",
        "https://[::1]x",
        "https://" + "a" * 64,
        "https://" + "a." * 127 + "b",
    ],
)
def test_an_address_has_to_be_one(url: str) -> None:
    with pytest.raises(ConfigError, match=r"base_url.* is not valid: "):
        set_to("base_url", url)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pa55@h",
        "https://user:pa55@h:99999",
        "https://user:pa55 @h",
        "ftp://user:pa55@h",
        "https://pa55@h",
        "https://user:pa55@[::1",
        "https://user:pa55%40h",
        "https://h?password=pa55",
        "https://h/#pa55",
        "hh_pa55",
    ],
)
def test_a_password_in_an_address_is_refused_and_shown_nowhere(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="base_url") as caught:
        set_to("base_url", url)
    assert "pa55" not in str(caught.value)
    with pytest.raises(ConfigError, match="base_url") as caught:
        Config.from_env({"HH_API_KEY": KEY, "HH_API_URL": url})
    assert "pa55" not in str(caught.value) + caplog.text


def test_plain_http_to_another_machine_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    assert set_to("base_url", "http://api.example.com") == "http://api.example.com"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "unencrypted to api.example.com" in caplog.text


@pytest.mark.parametrize(
    "url",
    ["http://localhost.", "http://LOCALHOST:1", "http://127.1.2.3", "http://127.255.255.255", "http://[::1]"],
)
def test_what_stays_in_the_machine_is_not_warned_about(url: str, caplog: pytest.LogCaptureFixture) -> None:
    Config.of(api_key=KEY, base_url=url, verify_tls=False)
    assert caplog.records == []


@pytest.mark.parametrize("url", ["http://localhost.example.com", "http://128.0.0.1", "http://0.0.0.0"])
def test_what_looks_like_this_machine_is_warned_about(url: str, caplog: pytest.LogCaptureFixture) -> None:
    Config.of(api_key=KEY, base_url=url)
    assert len(caplog.records) == 1


def test_a_certificate_that_is_not_verified_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    Config.from_env({"HH_API_KEY": KEY, "HH_VERIFY_SSL": "false", "HH_API_URL": "https://me.example"})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "verify_tls is off: whoever poses as me.example" in record.getMessage()


def test_what_goes_nowhere_is_not_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    Config.of(test_mode=True, verify_tls=False)
    Config.of(test_mode=True, base_url="http://api.example.com")
    assert caplog.records == []


# The environment.

DOCUMENTED = {
    "HH_API_KEY": "api_key",
    "HH_API_URL": "base_url",
    "HH_PROJECT": "project",
    "HH_SOURCE": "source",
    "HH_SESSION_NAME": "session_name",
    "HH_BATCH_SIZE": "max_batch_events",
    "HH_FLUSH_INTERVAL": "flush_interval",
    "HH_MAX_RETRIES": "max_retries",
    "HH_API_TIMEOUT": "request_timeout",
    "HH_VERIFY_SSL": "verify_tls",
    "HH_TEST_MODE": "test_mode",
}


def test_every_setting_has_honeyhives_own_name_or_one_of_ours() -> None:
    assert ENVIRONMENT.keys() == SETTINGS.keys()
    assert ENVIRONMENT["api_key"] == ("HH_INGESTION_API_KEY", "HH_API_KEY")
    for setting, names in ENVIRONMENT.items():
        if setting != "api_key":
            own = [name for name, documented in DOCUMENTED.items() if documented == setting]
            assert list(names) == (own or [f"HH_BATCHER_{setting.upper()}"])


VALUES: dict[str, tuple[str, object]] = {
    "base_url": ("https://h", "https://h"),
    "verify_tls": ("False", False),
    "request_timeout": ("1.5", 1.5),
    "max_in_flight": ("3", 3),
    "compression": ("gzip", "gzip"),
    "test_mode": ("TRUE", True),
    "max_queue_events": ("7", 7),
    "max_queue_bytes": ("8", 8),
    "overflow": ("drop_oldest", "drop_oldest"),
    "max_batch_events": ("9", 9),
    "max_batch_bytes": ("2048", 2048),
    "max_event_bytes": ("10", 10),
    "flush_interval": ("2", 2.0),
    "max_retries": ("0", 0),
    "max_elapsed": ("60", 60.0),
    "backoff_base": ("0.25", 0.25),
    "backoff_max": ("1e1", 10.0),
    "on_ambiguous": ("drop", "drop"),
    "project": ("p", "p"),
    "source": ("5", "5"),
    "event_name": ("n", "n"),
    "session_name": ("s n", "s n"),
    "capture_content": ("False", False),
    "sample_rate": ("0.5", 0.5),
    "shutdown_timeout": ("0", 0.0),
}


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "api_key"])
def test_every_setting_is_read_from_its_variable_and_an_argument_wins(setting: str) -> None:
    text, value = VALUES[setting]
    environ = {"HH_API_KEY": KEY, ENVIRONMENT[setting][0]: f" {text} "}
    read = part_of(setting, Config.from_env(environ))
    assert read == value
    assert type(read) is type(value)
    default = part_of(setting, Config.of(api_key=KEY))
    assert part_of(setting, Config.from_env(environ, **{setting: default})) == default


@pytest.mark.parametrize("rate", [1.0001, 2, math.inf, math.nan, "0.5", None])
def test_a_share_is_not_more_than_all(rate: object) -> None:
    with pytest.raises(ConfigError, match=r"^sample_rate="):
        set_to("sample_rate", rate)


def test_the_ingestion_key_wins_for_event_writes() -> None:
    def key_of(environ: dict[str, str], **settings: Any) -> str:
        key = Config.from_env(environ, **settings).endpoint.api_key
        assert isinstance(key, Secret)
        return key.reveal()

    both = {"HH_API_KEY": "project", "HH_INGESTION_API_KEY": "ingestion"}
    assert key_of(both) == "ingestion"
    assert key_of({**both, "HH_INGESTION_API_KEY": "  "}) == "project"
    assert key_of({"HH_API_KEY": "project"}) == "project"
    assert key_of(both, api_key="mine") == "mine"


def test_a_malformed_key_in_the_environment_is_an_error_that_does_not_show_it() -> None:
    with pytest.raises(ConfigError, match="api_key") as caught:
        Config.from_env({"HH_API_KEY": KEY + " x"})
    assert KEY not in str(caught.value)
    with pytest.raises(ConfigError, match="HH_INGESTION_API_KEY"):
        Config.from_env({})


@pytest.mark.parametrize(
    ("name", "text", "setting"),
    [
        ("HH_BATCH_SIZE", "many", "max_batch_events"),
        ("HH_BATCH_SIZE", "0", "max_batch_events"),
        ("HH_BATCH_SIZE", "1.5", "max_batch_events"),
        ("HH_FLUSH_INTERVAL", "nan", "flush_interval"),
        ("HH_FLUSH_INTERVAL", "inf", "flush_interval"),
        ("HH_FLUSH_INTERVAL", "-1", "flush_interval"),
        ("HH_API_TIMEOUT", "0", "request_timeout"),
        ("HH_VERIFY_SSL", "perhaps", "verify_tls"),
        ("HH_BATCHER_OVERFLOW", "explode", "overflow"),
        ("HH_BATCHER_MAX_BATCH_BYTES", "1023", "max_batch_bytes"),
    ],
)
def test_a_bad_value_is_warned_about_once_and_the_default_used(
    name: str, text: str, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config.from_env({"HH_API_KEY": KEY, name: text})
    assert part_of(setting, config) == part_of(setting, Config.of(api_key=KEY))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert name in record.getMessage()
    assert repr(text) in record.getMessage()


def test_a_bad_address_is_an_error_because_its_default_would_send_the_events_elsewhere() -> None:
    with pytest.raises(ConfigError, match=r"base_url='127\.0\.0\.1:8787' is not valid"):
        Config.from_env({"HH_API_KEY": KEY, "HH_API_URL": "127.0.0.1:8787"})


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_value_counts_as_unset(blank: str, caplog: pytest.LogCaptureFixture) -> None:
    environ = {names[-1]: blank for names in ENVIRONMENT.values()}
    assert Config.from_env({**environ, "HH_API_KEY": KEY}) == Config.of(api_key=KEY)
    assert caplog.records == []


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in ENVIRONMENT.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HH_API_KEY", KEY)
    monkeypatch.setenv("HH_PROJECT", "from the process")
    assert Config.from_env().defaults.project == "from the process"
    assert Config.from_env({"HH_API_KEY": KEY}).defaults.project is None


def test_every_number_is_bounded_from_below() -> None:
    """A new number without a bound would slip past the tables above."""
    for setting, kind in SETTINGS.items():
        hint = get_type_hints(kind, include_extras=True)[setting]
        if hint in (int, float):
            pytest.fail(f"{setting} has no bound")
        if get_origin(hint) is Annotated:
            assert get_args(hint)[0] in (int, float)
            assert setting in {name for name, *_ in NUMBERS}
