"""Purifiers: transformations that keep an image's meaning and break adversarial structure."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from purifiers.base import Purifier, PurifierError
from purifiers.bit_depth import BitDepth
from purifiers.chain import Chain
from purifiers.jpeg import Jpeg
from purifiers.median import Median

__all__ = [
    "PURIFIERS",
    "BitDepth",
    "Chain",
    "Jpeg",
    "Median",
    "Purifier",
    "PurifierError",
    "build",
]

PURIFIERS: dict[str, type[Purifier]] = {
    "bit_depth": BitDepth,
    "jpeg": Jpeg,
    "median": Median,
}


def build(name: str, params: Mapping[str, Any] | None = None) -> Purifier:
    """Return the purifier registered under a name.

    Raises:
        PurifierError: unknown name or parameter (the text lists the valid ones), or a value out
            of range.
    """
    if name not in PURIFIERS:
        raise PurifierError(f"unknown purifier {name!r}; there are: {', '.join(PURIFIERS)}")
    purifier = PURIFIERS[name]
    valid = list(inspect.signature(purifier).parameters)
    unknown = sorted(set(params or {}) - set(valid))
    if unknown:
        raise PurifierError(f"{name}: unknown parameters {unknown}; there are: {', '.join(valid)}")
    return purifier(**(params or {}))
