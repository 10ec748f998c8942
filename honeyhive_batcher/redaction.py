"""Takes out of events what must not leave: `before_send=redact(EMAIL, keys=("password",))`.

Every pattern here takes time in proportion to the text, whatever the text is: it begins where a word does
and never goes back over what it has read. A pattern of your own should do so, too: it runs inside `push`.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from msgspec import Struct

from honeyhive_batcher.errors import ConfigError
from honeyhive_batcher.plain_json import may_be_an_event, plain_json

__all__ = ["API_KEY", "BEARER_TOKEN", "CARD_NUMBER", "EMAIL", "Pattern", "redact"]


class Pattern(Struct, frozen=True):
    """A regular expression, and what else has to be true of a text that it matches."""

    expression: re.Pattern[str]
    is_meant: Callable[[str], bool] | None = None
    """Called with a match; a false answer leaves it, and the search goes on behind its first character."""

    def replaced(self, text: str, replacement: str) -> str:
        """Return `text` with all matches replaced."""
        if self.is_meant is None:
            return self.expression.sub(lambda _: replacement, text)  # its backslashes mean nothing
        parts: list[str] = []
        begin = at = 0
        while at <= len(text) and (found := self.expression.search(text, at)) is not None:
            at = found.start() + 1
            if found.end() > found.start() and self.is_meant(found[0]):
                parts += (text[begin : found.start()], replacement)
                begin = at = found.end()
        return "".join((*parts, text[begin:]))


def _passes_luhn(text: str) -> bool:
    digits = [int(character) for character in text if character.isdigit()][::-1]
    return sum(digits[::2] + [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]) % 10 == 0


EMAIL = Pattern(re.compile(r"(?<![\w.%+'-])[\w.%+'-]++@[\w-]++(?:\.[\w-]++)++"))
"""Addresses of e-mail."""
CARD_NUMBER = Pattern(
    re.compile(
        r"(?<![0-9])(?:[0-9]{13,19}"
        r"|[0-9]{4}([ .\xa0-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"
        r"|[0-9]{4}([ .\xa0-])[0-9]{6}\2[0-9]{4,5})(?![0-9])"
    ),
    _passes_luhn,
)
"""Numbers of payment cards, in one piece or in the usual groups, whose check digit is right."""
BEARER_TOKEN = Pattern(re.compile(r"\bbearer\s{1,8}+[\w.~+/=-]{8,}+", re.IGNORECASE))
"""`Bearer` and the token behind it."""
API_KEY = Pattern(
    re.compile(
        r"(?<![A-Za-z0-9])(?:"
        r"(?:sk|gsk|hf|hh|r8|xai|npm|pplx|glpat|nvapi|tvly|ls[a-z0-9]{1,4}+)[-_][\w-]{16,}+"
        r"|(?:sk|pk|rk)_(?:live|test)_\w{8,}+"
        r"|(?:gh[a-z]|github_pat)_\w{16,}+"
        r"|xox[a-z]-[\w-]{8,}+"
        r"|(?:AKIA|ASIA)[A-Z0-9]{16}"
        r"|AIza[\w-]{35}"
        r")"
    )
)
"""Keys of the usual services, HoneyHive's among them, by how they begin."""

Look: TypeAlias = Callable[[Any], Any]


def redact(
    *patterns: str | re.Pattern[str] | Pattern,
    keys: Iterable[str] = (),
    replacement: str = "[redacted]",
) -> Look:
    """Return a function for `before_send` and `before_session` that replaces what must not leave.

    It replaces every match of a pattern in every text, at any depth, the names of members included, and the
    whole value of every member whose name is one of `keys`, in whatever case. It returns a copy, as the plain
    JSON that would be sent, and changes nothing that it is given. Texts that hold JSON are texts: `keys` are
    not looked for in them, patterns are.

    Raises:
        ConfigError: There is nothing to replace, or a pattern is none.
    """
    wanted = [_pattern(pattern) for pattern in patterns]
    names = {key.casefold() for key in ((keys,) if isinstance(keys, str) else keys)}
    if not wanted and not names:
        raise ConfigError("redact() has neither a pattern nor keys")

    def text(value: str) -> str:
        for pattern in wanted:
            value = pattern.replaced(value, replacement)
        return value

    def look(value: Any) -> Any:
        if not may_be_an_event(value):
            return value  # it will be refused as it is
        return _walked(plain_json(value)[0], text, names, replacement)

    return look


def _pattern(pattern: object) -> Pattern:
    if isinstance(pattern, Pattern):
        return pattern
    try:
        if isinstance(pattern, (str, re.Pattern)) and isinstance(
            expression := re.compile(pattern), re.Pattern
        ):
            expression.search("")  # one for bytes cannot
            return Pattern(expression)
    except (re.error, TypeError) as error:
        raise ConfigError(f"{pattern!r} is no pattern: {error}") from None
    raise ConfigError(f"{pattern!r} is no pattern")


def _walked(root: Any, text: Callable[[str], str], names: set[str], replacement: str) -> Any:
    """Replace in plain JSON that is nobody else's. Without recursion: it may be nested deep."""
    whole = [root]
    waiting: list[Any] = [whole]

    def replaced(value: Any) -> Any:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, (dict, list)):
            waiting.append(value)
        return value

    while waiting:
        container = waiting.pop()
        if isinstance(container, list):
            container[:] = [replaced(value) for value in container]
            continue
        members = list(container.items())
        container.clear()
        for name, value in members:
            told = text(name)
            if told in container:  # two names that became one
                told = f"{told} {len(container)}"
            container[told] = replacement if name.casefold() in names else replaced(value)
    return whole[0]
