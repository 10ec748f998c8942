"""What a call has cost, by the price list of the package `genai-prices`: `Batcher(cost=cost)`.

The list is in the package; nothing is asked of the network. Its makers say that it will not be right to the
cent. A price of your own contract needs a function of your own.
"""

import contextlib
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

        `prompt_tokens` hold what a cache has read and written, as OpenAI and every adapter here count it;
        `input_tokens` count as the provider does: Anthropic's do not hold it.
        """
        from genai_prices import calc_price  # noqa: PLC0415 - an extra, and slow to import

        model, provider, usage = _named(event)
        if model is None or provider is None or not isinstance(usage, dict):
            return None
        try:
            tokens = _counted(usage) if "prompt_tokens" in usage else _extracted(usage, provider, model)
            if tokens is None:
                return None
            price = calc_price(tokens, model, provider_id=provider, genai_request_timestamp=_begun_at(event))
        except LookupError:
            return None  # nobody knows this model, or this provider
        return float(price.total_price)


def _counted(usage: Mapping[str, Any]) -> Any:
    """Return counts by OpenAI's names, which all adapters of this package use: for Anthropic's as well."""
    from genai_prices import Usage  # noqa: PLC0415 - see above

    details = usage.get("prompt_tokens_details")
    cached = details if isinstance(details, dict) else {}
    return Usage(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage.get("completion_tokens"),
        cache_read_tokens=cached.get("cached_tokens"),
        cache_write_tokens=cached.get("cache_creation_tokens"),
    )


def _extracted(usage: Mapping[str, Any], provider: str, model: str) -> Any:
    """Return counts as their provider writes them; None if it does not count like this."""
    from genai_prices import extract_usage  # noqa: PLC0415 - see above

    answer = {"model": model, "usage": usage}
    flavors = (
        ("default", "anthropic") if provider == "anthropic" else ("responses", "default", "anthropic", "chat")
    )
    for flavor in flavors:
        with contextlib.suppress(ValueError):
            return extract_usage(answer, provider_id=provider, api_flavor=flavor).usage
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


def _begun_at(event: Mapping[str, Any]) -> datetime | None:
    """Return when the call began: prices change."""
    try:
        return datetime.fromtimestamp(event["start_time"] / 1000, UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


cost = GenaiPrices()
"""What to give to a batcher: `Batcher(cost=cost)`."""
