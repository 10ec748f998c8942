"""Whether a value holds itself, so that no encoder would ever come to its end."""

from collections.abc import Iterator
from typing import Any

from honeyhive_batcher.core.fields import field_names

MAX_VISITS = 100_000
"""Values that one search or repair looks at; it bounds the time also where shared parts multiply."""

_ABSENT = object()


def has_cycle(value: Any) -> bool:
    """Return whether a container among the first `MAX_VISITS` values below `value` holds itself."""
    path: list[tuple[int, Iterator[Any]]] = [(id(value), _items(value) or iter(()))]
    on_path = {id(value)}
    for _ in range(MAX_VISITS):
        item = next(path[-1][1], _ABSENT)
        if item is _ABSENT:
            on_path.discard(path.pop()[0])
            if not path:
                return False
        elif id(item) in on_path:
            return True
        elif (items := _items(item)) is not None:
            path.append((id(item), items))
            on_path.add(id(item))
    return False


def _items(value: Any) -> Iterator[Any] | None:
    if isinstance(value, dict):
        return iter(list(value.values()))
    if isinstance(value, (list, tuple)):
        return iter(value)
    try:
        names = list(vars(value)) if hasattr(type(value), "model_dump") else field_names(value)
        return None if names is None else iter([getattr(value, name, None) for name in names])
    except Exception:  # a property may raise anything
        return None
