"""The smallest adapter of the OpenAI client: it tells of a call unless an outer one is going to."""

from typing import Any

import openai

from honeyhive_batcher.claims import claim, is_claimed
from honeyhive_batcher.integrations.once import is_new_error, is_news
from honeyhive_batcher.producer import Producer


class TellingOpenAI(openai.AsyncOpenAI):  # type: ignore[misc]  # Any to mypy: optional
    """A real client, whose requests are told to a batcher as `{"by": "inner"}`."""

    def __init__(self, batcher: Producer, **settings: Any) -> None:
        super().__init__(**settings)
        self._batcher = batcher

    async def request(self, *arguments: Any, **named: Any) -> Any:
        """Make a request, and tell of it."""
        if is_claimed(self._batcher):
            return await super().request(*arguments, **named)
        try:
            with claim(self._batcher):  # some instrumentations are below the client
                answer = await super().request(*arguments, **named)
        except Exception as error:
            if is_new_error(self._batcher, error):
                self._batcher.push({"by": "inner", "error": str(error)})
            raise
        parsed = answer.parse() if hasattr(answer, "parse") else answer
        if is_news(self._batcher, getattr(parsed, "id", None)):
            self._batcher.push({"by": "inner"})
        return answer
