"""Building registered parts from configuration, with errors that name what is valid."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def construct(
    registry: Mapping[str, type[T]],
    kind: str,
    name: str,
    params: Mapping[str, Any] | None,
    error: type[Exception],
) -> T:
    """Return `registry[name](**params)`.

    Args:
        registry: name -> class.
        kind: what the registry holds, for the error's text.
        name: the name looked up.
        params: keyword parameters of the class.
        error: what to raise for an unknown name or parameter.
    """
    if name not in registry:
        raise error(f"unknown {kind} {name!r}; there are: {', '.join(registry)}")
    valid = list(inspect.signature(registry[name]).parameters)
    unknown = sorted(set(params or {}) - set(valid))
    if unknown:
        takes = ", ".join(valid) or "none"
        raise error(f"{name}: unknown parameters {unknown}; there are: {takes}")
    return registry[name](**(params or {}))
