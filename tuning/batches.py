"""How many samples a batch has, how much of each is seen, and where its randomness comes from."""

from __future__ import annotations

import hashlib
from math import prod

import torch

from purifiers.learned import Recipe

CROP = 96
"""Longest side in pixels of what a network is trained on, unless it needs whole images."""
_VALUES = 3 * 2**18
"""Most values in a batch, as long as it has `_LEAST` samples: those of 256 images of 3x32x32, or 28
crops of 3x96x96. The gradient of a convolution averages over pixels, so fewer large images do."""
_LEAST = 8


def seeded(*parts: object) -> torch.Generator:
    """A generator on the CPU whose stream depends on all the parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def affordable(batch: int, shape: tuple[int, ...]) -> int:
    """The batch, or fewer samples where they are large."""
    return min(batch, max(_LEAST, _VALUES // prod(shape)))


def window(recipe: Recipe, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what a recipe sees of one sample; only images, (C, H, W), are ever cut."""
    if recipe.whole or len(shape) != 3:
        return shape
    return (shape[0], *(min(side, CROP) for side in shape[1:]))


def batch_of(recipe: Recipe, shape: tuple[int, ...]) -> int:
    """Samples in each batch of a recipe, where one sample has this shape."""
    return affordable(recipe.batch, window(recipe, shape))
