"""Which fields a foreign object has, and how msgspec names those of a Struct on the wire."""

import functools
from typing import Any

from msgspec import NODEFAULT, UNSET, Struct


def field_names(value: Any) -> list[str] | None:
    """Return the names of the fields of a Struct, dataclass or attrs object, or None for anything else."""
    kind: Any = type(value)  # the object itself may answer any question with an exception
    if issubclass(kind, Struct):
        return list(kind.__struct_fields__)
    if hasattr(kind, "__dataclass_fields__"):
        return list(kind.__dataclass_fields__)
    if hasattr(kind, "__attrs_attrs__"):
        return [attribute.name for attribute in kind.__attrs_attrs__]
    return None


def struct_fields(struct: Struct) -> dict[str, Any]:
    """Return the fields of a Struct that are set, under their wire names."""
    config = struct.__struct_config__
    fields: dict[str, Any] = {} if config.tag_field is None else {config.tag_field: config.tag}
    for wire_name, name in zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True):
        value = getattr(struct, name)
        if value is not UNSET:
            fields[wire_name] = value
    return fields


@functools.lru_cache(maxsize=256)  # a Struct may be made at run time, again and again
def is_plain(kind: type[Struct], names: tuple[str, ...]) -> bool:
    """Return whether the encoder writes every field that is set, under its own name, and all that a Struct
    says by these names are fields.
    """
    fields = kind.__struct_fields__
    if kind.__struct_encode_fields__ != fields:
        return False
    if kind.__struct_config__.omit_defaults:
        defaults = zip(reversed(fields), reversed(kind.__struct_defaults__), strict=False)
        if any(
            name in names and default is not UNSET and default is not NODEFAULT for name, default in defaults
        ):
            return False  # what is set and left out at once
    return not any(hasattr(kind, name) and name not in fields for name in (*names, "__getattr__"))
