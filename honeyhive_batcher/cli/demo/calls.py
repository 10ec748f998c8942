"""Calls of language models as a support chat makes them. Everything in them is invented."""

import itertools
import random
from typing import Any, final

from msgspec import Struct


class Model(Struct, frozen=True, kw_only=True):
    """What a model costs and how fast it is; invented, of a likely size."""

    name: str
    provider: str
    first_token: float
    """Milliseconds until the first token."""
    per_token: float
    """Milliseconds for each further one."""
    input_price: float
    """US dollars for a million tokens."""
    output_price: float


CHAT_MODELS = (
    Model(name="gpt-4o", provider="openai", first_token=420, per_token=14, input_price=2.5, output_price=10),
    Model(
        name="claude-sonnet-4-5",
        provider="anthropic",
        first_token=610,
        per_token=17,
        input_price=3,
        output_price=15,
    ),
    Model(
        name="gemini-2.5-flash",
        provider="google",
        first_token=310,
        per_token=6,
        input_price=0.3,
        output_price=2.5,
    ),
)
CLASSIFIER = Model(
    name="gpt-4o-mini", provider="openai", first_token=230, per_token=9, input_price=0.15, output_price=0.6
)

_SYSTEM = "You are the support desk of a shop for garden tools. Answer briefly; look orders up, never guess."
_QUESTIONS = (
    "Where is my order {order}?",
    "The blade of my hedge trimmer is blunt after two weeks. What can I do?",
    "Can I still change the address of order {order}?",
    "Which hose fits the {size} mm connector?",
    "I was charged twice for order {order}.",
    "Do you ship to the islands, and how long does it take?",
    "How do I winterise the pressure washer?",
)
_ANSWERS = (
    "Order {order} left our warehouse yesterday and should arrive within two working days.",
    "That should not happen. I have started an exchange; the label is in your mailbox.",
    "Yes, the parcel has not been packed yet. Which address should it go to?",
    "The {size} mm connector takes the flat hose and the braided one, but not the soaker hose.",
    "I see one charge and one reservation; the reservation expires within three days.",
    "Drain it, run it dry for ten seconds, and keep it above freezing.",
)
_FOLLOW_UPS = (
    "Thanks! And the invoice?",
    "How long will that take?",
    "Could you check again, please?",
    "Great.",
)
_LABELS = ("delivery", "returns", "billing", "product question", "praise", "other")
_ERRORS = (
    "RateLimitError: 429 rate limit reached for requests, try again in 1.2 s",
    "APITimeoutError: the provider did not answer within 30 s",
    "OverloadedError: 529 the provider is overloaded",
)
_LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up_order",
        "description": "Return the state of an order.",
        "parameters": {
            "type": "object",
            "properties": {"order": {"type": "string"}},
            "required": ["order"],
        },
    },
}


@final
class Caller:
    """Makes up calls; equal seeds, equal calls."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable is what it must be, not secret
        self._chat_calls = itertools.count()

    def question(self) -> str:
        """Return what a customer asks first."""
        return self._filled(self._random.choice(_QUESTIONS))

    def follow_up(self) -> str:
        """Return what a customer says next."""
        return self._random.choice(_FOLLOW_UPS)

    def model(self) -> Model:
        """Return the model that a chat talks to."""
        return self._random.choice(CHAT_MODELS)

    def turns(self) -> int:
        """Return how often a customer writes."""
        return self._random.randint(2, 4)

    def chat(self, model: Model, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the event of one answer: mostly text, sometimes a tool call or a provider's error."""
        history = [{"role": "system", "content": _SYSTEM}, *messages]
        call = next(self._chat_calls)  # counted, not drawn: a short demo has to show all kinds
        response: dict[str, Any] | None
        error = None
        if call % 25 == 4:
            response, error = None, self._random.choice(_ERRORS)
        elif call % 3 == 0 and messages[-1]["role"] == "user":
            arguments = f'{{"order": "{self._order()}"}}'
            function = {"name": "look_up_order", "arguments": arguments}
            call_id = f"call_{self._random.getrandbits(48):012x}"
            response = {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": call_id, "type": "function", "function": function}],
            }
        else:
            response = {"role": "assistant", "content": self._filled(self._random.choice(_ANSWERS))}
        event = self._event(model, history, response, error)
        event |= {"event_name": "support answer", "tools": [_LOOK_UP], "tool_choice": "auto"}
        event["hyperparameters"] = {"temperature": 0.3, "max_tokens": 512, "stream": True}
        return event

    def tool_result(self, response: dict[str, Any]) -> dict[str, Any]:
        """Return the message with what the tool found."""
        state = self._random.choice(("packed", "on its way", "delivered", "waiting for payment"))
        return {"role": "tool", "tool_call_id": response["tool_calls"][0]["id"], "content": state}

    def classification(self) -> dict[str, Any]:
        """Return the event of one small call that no chat waits for."""
        message = {"role": "user", "content": f"Label this message with one word: {self.question()}"}
        label = self._random.choice(_LABELS)
        event = self._event(CLASSIFIER, [message], {"role": "assistant", "content": label}, None)
        event |= {"event_name": "label", "hyperparameters": {"temperature": 0, "max_tokens": 4}}
        event["metrics"] = {"confidence": round(self._random.uniform(0.6, 0.99), 3)}
        return event

    def _event(
        self, model: Model, messages: list[dict[str, Any]], response: dict[str, Any] | None, error: str | None
    ) -> dict[str, Any]:
        prompt = sum(_tokens(str(message["content"])) for message in messages)
        completion = (
            0 if response is None else _tokens(str(response.get("content") or response["tool_calls"]))
        )
        first_token = model.first_token * self._random.lognormvariate(0, 0.25)
        return {
            "model": model.name,
            "provider": model.provider,
            "messages": messages,
            "response": response,
            "duration": round(first_token + completion * model.per_token, 3),
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            },
            "cost": round((prompt * model.input_price + completion * model.output_price) / 1e6, 8),
            "error": error,
            "metadata": {"time_to_first_token": round(first_token, 3)},
        }

    def _order(self) -> str:
        return f"GT-{self._random.randrange(10_000, 99_999)}"

    def _filled(self, text: str) -> str:
        return text.format(order=self._order(), size=self._random.choice((13, 19, 25)))


def _tokens(text: str) -> int:
    return 4 + len(text) // 4
