"""Opponent colours: one plane of brightness and two of colour difference, to be treated apart.

Natural images carry little detail in the colour differences, adversarial perturbations as much as
anywhere, so that is where denoising costs least.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Orthonormal, so that white noise is as strong in every plane, and the inverse is the transpose.
_A, _B, _C = 1 / math.sqrt(3), 1 / math.sqrt(2), 1 / math.sqrt(6)
_FROM_RGB = ((_A, _A, _A), (_B, 0.0, -_B), (_C, -2 * _C, _C))
_TO_RGB = tuple(zip(*_FROM_RGB, strict=True))


def to_opponent(x: Tensor) -> Tensor:
    """Planes of brightness, red-blue and magenta-green of RGB images, (B, 3, H, W) both."""
    return _mixed(x, _FROM_RGB)


def to_rgb(planes: Tensor) -> Tensor:
    """The inverse of `to_opponent`."""
    return _mixed(planes, _TO_RGB)


def _mixed(x: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    # Channel by channel: the last bit of a matrix product may depend on the batch size.
    first, second, third = x.unbind(1)
    return torch.stack([a * first + b * second + c * third for a, b, c in matrix], dim=1)
