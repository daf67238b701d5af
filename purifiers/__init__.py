"""Purifiers: transformations that keep an image's meaning and break adversarial structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purifiers.base import Purifier, PurifierError
from purifiers.bit_depth import BitDepth
from purifiers.chain import Chain
from purifiers.denoiser import Denoiser
from purifiers.jpeg import Jpeg
from purifiers.median import Median
from purifiers.registry import construct

__all__ = [
    "PURIFIERS",
    "BitDepth",
    "Chain",
    "Denoiser",
    "Jpeg",
    "Median",
    "Purifier",
    "PurifierError",
    "build",
]

PURIFIERS: dict[str, type[Purifier]] = {
    "bit_depth": BitDepth,
    "denoiser": Denoiser,
    "jpeg": Jpeg,
    "median": Median,
}


def build(name: str, params: Mapping[str, Any] | None = None) -> Purifier:
    """Return the purifier registered under a name.

    Raises:
        PurifierError: unknown name or parameter (the text lists the valid ones), or a value out
            of range.
    """
    return construct(PURIFIERS, "purifier", name, params, PurifierError)
