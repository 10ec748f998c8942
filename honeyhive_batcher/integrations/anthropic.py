"""Anthropic's client: one event for every call of a model.

client = instrument(AsyncAnthropic(), batcher)
"""

from typing import Any, TypeVar

from honeyhive_batcher.integrations.anthropic_messages import Messages
from honeyhive_batcher.integrations.instrumented import put_on, uninstrument
from honeyhive_batcher.producer import Producer

__all__ = ["instrument", "uninstrument"]

Client = TypeVar("Client")

_DIALECTS = {"/v1/messages": Messages()}
_CLOUDS = {"Bedrock": "bedrock", "Vertex": "vertex_ai", "Foundry": "azure"}
"""By a part of the name of the client's class."""


def instrument(client: Client, batcher: Producer | None = None, *, provider: str | None = None) -> Client:
    """Tell `batcher` of every model call that this client makes, and return the client.

    It takes `Anthropic` and `AsyncAnthropic`: messages, whole, streamed (`create(stream=True)` and
    `messages.stream`), parsed and raw, and those of copies. Otherwise as `openai.instrument`.

    Raises:
        ConfigError: This is no such client.
    """
    put_on(client, batcher, dialects=_DIALECTS, provider=provider or _provider_of(client))
    return client


def _provider_of(client: Any) -> str:
    name = type(client).__name__
    return next((cloud for part, cloud in _CLOUDS.items() if part in name), "anthropic")
