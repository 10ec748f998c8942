"""OpenAI's client, and every provider's that is called by it: one event for every call of a model.

client = instrument(AsyncOpenAI(), batcher)
"""

from typing import Any, TypeVar
from urllib.parse import urlsplit

from honeyhive_batcher.integrations.dialect import Dialect
from honeyhive_batcher.integrations.instrumented import put_on, uninstrument
from honeyhive_batcher.integrations.openai_chat import ChatCompletions, Completions
from honeyhive_batcher.integrations.openai_responses import Responses
from honeyhive_batcher.integrations.values import text
from honeyhive_batcher.producer import Producer

__all__ = ["instrument", "uninstrument"]

Client = TypeVar("Client")

_DIALECTS: dict[str, Dialect] = {
    "/chat/completions": ChatCompletions(),
    "/completions": Completions(),
    "/responses": Responses(),
}
_PROVIDERS = {
    "openai.azure.com": "azure",
    "cognitiveservices.azure.com": "azure",
    "services.ai.azure.com": "azure",
    "api.anthropic.com": "anthropic",
    "api.cerebras.ai": "cerebras",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "generativelanguage.googleapis.com": "google",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "openrouter.ai": "openrouter",
    "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.x.ai": "x-ai",
}
"""By the end of the host's name; all others are taken for OpenAI's own kind."""


def instrument(client: Client, batcher: Producer | None = None, *, provider: str | None = None) -> Client:
    """Tell `batcher` of every model call that this client makes, and return the client.

    It takes `OpenAI`, `AsyncOpenAI` and Azure's of openai 1, 2 and 3: chat completions, completions and
    responses, whole, streamed, parsed and raw, and those of copies (`with_options`). Each is one event,
    on whichever way it ends; of a stream that is left early the metadata say `incomplete`, and what came of
    it is kept. What the client returns, raises and how long it takes stays as it is. An event belongs to the
    session that is bound where the call is made.

    Args:
        client: the client; one that is instrumented already tells only this batcher from now on.
        batcher: who is told. Left out, it is the batcher that was started last when the call is made.
        provider: the events' `provider`, if the client's address does not tell it.

    Raises:
        ConfigError: This is no such client.
    """
    put_on(client, batcher, dialects=_DIALECTS, provider=provider or _provider_of(client))
    return client


def _provider_of(client: Any) -> str:
    host = urlsplit(str(getattr(client, "base_url", ""))).hostname or ""
    return (
        text(*(name for end, name in _PROVIDERS.items() if host == end or host.endswith(f".{end}")))
        or "openai"
    )
