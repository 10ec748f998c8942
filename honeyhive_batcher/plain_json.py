"""What would be sent of a value, as plain dicts, lists, texts and numbers that belong to nobody else."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from honeyhive_batcher.core.repair import encode_anyway, mend

MAX_BYTES = 16 * 1024 * 1024
"""Longest JSON that is looked at: four times the largest event that is sent by default."""


class TooLargeToLookAtError(ValueError):
    """The value is longer than `MAX_BYTES` as JSON."""


def plain_json(value: object) -> tuple[Any, int]:
    """Return `value` as it would be sent, and how many values of it had to be replaced for that.

    It may hold anything: Structs, pydantic models, dataclasses, arrays, cycles. It is not changed, and the
    answer shares nothing with it.

    Raises:
        TooLargeToLookAtError: It is too long.
    """
    data, repairs = encode_anyway(value, MAX_BYTES)
    if data is None:
        raise TooLargeToLookAtError(f"it is longer than {MAX_BYTES} bytes")
    encoded = bytes(data)
    return msgspec.json.decode(mend(encoded) or encoded), repairs


def may_be_an_event(value: object) -> bool:
    """Return whether the encoder would look at this at all."""
    return isinstance(value, (dict, Struct, Mapping))
