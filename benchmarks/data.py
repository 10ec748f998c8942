"""The event of HoneyHive's documentation, made afresh for every push, and what one encode of it costs."""

import time
from typing import Any

import msgspec

Event = dict[str, Any]

MARK = "event-"
"""Stands before the number of each event, on every wire: strings travel as they are."""
DIGITS = 8

DOCUMENTED = 0
"""The size of the documentation's own event; see `make_event`."""
SIZES = {"300 B": 300, "1 KB": DOCUMENTED, "10 KB": 10_000, "100 KB": 100_000}

_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "Get the current weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "location": {
                        "type": "string",
                        "description": "The city and state, e.g. San Francisco, CA",
                    },
                    "format": {
                        "type": "string",
                        "enum": ["celsius", "fahrenheit"],
                        "description": "The temperature unit to use. Infer this from the users location.",
                    },
                },
                "required": ["location", "format"],
            },
        },
    }
]
_SENTENCE = "The quick brown fox jumps over the lazy dog, and number {} was not amused. "
_LONG_TEXT = "".join(_SENTENCE.format(number * 7919 % 10_007) for number in range(1_400))


def make_event(number: int, size: int = DOCUMENTED) -> Event:
    """Return an event with a number in it, in containers of its own but the tools.

    With a size, about that many bytes of JSON: fewer fields than the documentation's, or a longer prompt.
    """
    if 0 < size < 1_000:
        return {
            "project": "New Project",
            "model": "gpt-4o",
            "provider": "openai",
            "messages": [{"role": "user", "content": "Hello, world!"}],
            "response": {"role": "assistant", "content": "Hello, world!"},
            "duration": 42,
            "usage": {"prompt_tokens": 10, "completion_tokens": 10},
            "metadata": {"number": f"{MARK}{number:08}"},
        }
    return {
        "project": "New Project",
        "model": "gpt-4o",
        "provider": "openai",
        "messages": [
            {"role": "system", "content": _LONG_TEXT[: size - 1_000] if size else "Hello, world!"},
        ],
        "response": {"role": "assistant", "content": "Hello, world!"},
        "duration": 42,
        "usage": {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20},
        "cost": 0.00008,
        "error": None,
        "source": "playground",
        "event_name": "Model Completion",
        "hyperparameters": {
            "temperature": 0,
            "top_p": 1,
            "max_tokens": 1000,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "stop": [],
            "n": 1,
        },
        "template": [{"role": "system", "content": "Hello, {{ name }}!"}],
        "template_inputs": {"name": "world"},
        "tools": _TOOLS,
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "metadata": {"number": f"{MARK}{number:08}"},
    }


def encode_seconds(size: int = DOCUMENTED) -> float:
    """Return the CPU seconds of one msgspec encode of such an event: the unit of everything else."""
    encoder = msgspec.json.Encoder()
    event = make_event(0, size)
    rounds = 5_000_000 // max(1_000, size)
    best = float("inf")
    for _ in range(5):
        began = time.thread_time()
        for _ in range(rounds):
            encoder.encode(event)
        best = min(best, (time.thread_time() - began) / rounds)
    return best
