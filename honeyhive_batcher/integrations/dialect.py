"""What an adapter of a client has to know of one endpoint of a provider."""

from collections.abc import Mapping
from typing import Any, Protocol


class Assembly(Protocol):
    """A streamed answer, of which more and more is there."""

    @property
    def is_complete(self) -> bool:
        """Whether the provider has said that nothing more comes."""
        ...

    @property
    def error(self) -> str | None:
        """What the provider has said went wrong in the midst of it."""
        ...

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take the data of one more event."""
        ...

    def finish(self) -> None:
        """Take `[DONE]`, by which OpenAI's chat says that nothing more comes."""
        ...

    def answer(self) -> dict[str, Any]:
        """Return what has come, in the shape of an answer that is not streamed."""
        ...


class Dialect(Protocol):
    """One endpoint: how its requests and its answers are told in the fields of an event.

    A field that is None is left out. Bodies and answers come from anywhere: of another shape than the
    documented, these may raise.
    """

    @property
    def name(self) -> str:
        """The event's `event_name`."""
        ...

    def request_fields(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that the body of a request tells."""
        ...

    def answer_fields(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that an answer tells, or as much of one as came."""
        ...

    def assembly(self) -> Assembly:
        """Return what puts a streamed answer together."""
        ...
