"""The event of HoneyHive's documentation, made afresh for every push, and what one encode of it costs."""

import time
from typing import Any

import msgspec

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


def make_event(number: int) -> dict[str, Any]:
    """Return the documentation's event with a number in it, in containers of its own but the tools."""
    return {
        "project": "New Project",
        "model": "gpt-4o",
        "provider": "openai",
        "messages": [{"role": "system", "content": "Hello, world!"}],
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
        "metadata": {"number": number},
    }


def encode_seconds(rounds: int = 5_000) -> float:
    """Return the CPU seconds of one msgspec encode of the event: the unit of everything else."""
    encoder = msgspec.json.Encoder()
    event = make_event(0)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(rounds):
            encoder.encode(event)
        best = min(best, (time.process_time() - began) / rounds)
    return best
