"""What a call has cost, by the price list of the package `genai-prices`: `Batcher(cost=cost)`.

The list is in the package; nothing is asked of the network. Its makers say that it will not be right to the
cent. A price of your own contract needs a function of your own.
"""

import importlib.util
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, final

__all__ = ["GenaiPrices", "cost"]

_WARM_UP = {"model": "gpt-4o", "provider": "openai", "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


@final
class GenaiPrices:
    """The price list. Imported when the first batcher that uses it is started, in that batcher's thread."""

    def check_installed(self) -> None:
        """Raise ImportError, with what to do, if the package is missing. Imports nothing."""
        if importlib.util.find_spec("genai_prices") is None:
            raise ImportError("genai-prices is missing: pip install 'honeyhive-batcher[cost]'")

    def warm(self) -> None:
        """Import the package, which takes a second, and have it read its list."""
        self(_WARM_UP)

    def __call__(self, event: Mapping[str, Any]) -> float | None:
        """Return what the call has cost in US dollars; None if its model, provider or usage is not known.

        What was read from a cache counts as its provider counts it: OpenAI's `prompt_tokens` hold it,
        Anthropic's `input_tokens` do not.
        """
        from genai_prices import calc_price, extract_usage  # noqa: PLC0415 - an extra, and slow to import

        model, provider, usage = _named(event)
        if model is None or provider is None or not isinstance(usage, dict):
            return None
        for flavor in _flavors(usage, provider):
            try:
                tokens = extract_usage(
                    {"model": model, "usage": usage}, provider_id=provider, api_flavor=flavor
                ).usage
                return float(
                    calc_price(
                        tokens, model, provider_id=provider, genai_request_timestamp=_begun_at(event)
                    ).total_price
                )
            except LookupError:
                return None  # nobody knows this model, or this provider
            except ValueError:
                continue  # the provider does not count like this
        return None


def _named(event: Mapping[str, Any]) -> tuple[str | None, str | None, Any]:
    config = event.get("config")
    config = config if isinstance(config, dict) else {}
    models = (event.get("model"), event.get("model_name"), config.get("model"))
    providers = (event.get("provider"), config.get("provider"))
    model, provider = (
        next((each for each in found if isinstance(each, str) and each), None)
        for found in (models, providers)
    )
    return model, provider and provider.lower(), event.get("usage")


def _flavors(usage: dict[str, Any], provider: str) -> tuple[str, ...]:
    """Return the ways to count that an API with such a usage may have, the likeliest first."""
    if "prompt_tokens" in usage:
        return ("chat", "default")
    return (
        ("default", "anthropic") if provider == "anthropic" else ("responses", "default", "anthropic", "chat")
    )


def _begun_at(event: Mapping[str, Any]) -> datetime | None:
    """Return when the call began: prices change."""
    try:
        return datetime.fromtimestamp(event["start_time"] / 1000, UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


cost = GenaiPrices()
"""What to give to a batcher: `Batcher(cost=cost)`."""
