"""Differences of neighbouring pixels, which take out smooth content, and their moments."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from detectors.bands import extended, opponent
from detectors.maps import Maps

_LONG = 8192
"""Values summed in one call. NumPy's BLAS starts threads for 10,000 and more, whatever PyTorch was
told. (PyTorch's own takes seven times as long where its two arguments are not aligned alike.)"""


def differences(planes: Tensor, dim: int) -> list[Tensor]:
    """First, second and third differences along a dimension, each one shorter than the last."""
    done = []
    for _ in range(3):
        size = planes.shape[dim] - 1
        planes = planes.narrow(dim, 1, size) - planes.narrow(dim, 0, size)
        done.append(planes)
    return done


def cross_difference(maps: Maps) -> Tensor:
    """Second differences along the rows of those along the columns, (C, B, H, W), edges repeated.

    Of orthonormal planes, so that its energy over the planes is that over the channels.
    """
    planes = extended(maps.of(opponent), (1, 1, 1, 1))
    for dim in (-1, -1, -2, -2):
        size = planes.shape[dim] - 1
        planes = planes.narrow(dim, 1, size) - planes.narrow(dim, 0, size)
    return planes


def dots(a: Tensor, b: Tensor) -> Tensor:
    """Sums of products along the last dimension, without a product of all values in between.

    `(a * b).sum(-1)` elsewhere than on a CPU, and where gradients are wanted.
    """
    if a.device.type != "cpu" or not torch.is_inference_mode_enabled():
        return (a * b).sum(-1)
    left, right = a.numpy()[..., None, :], b.numpy()[..., None]
    sums = [
        np.matmul(left[..., at : at + _LONG], right[..., at : at + _LONG, :])
        for at in range(0, a.shape[-1], _LONG)
    ]
    return torch.from_numpy(sum(sums[1:], start=sums[0])[..., 0, 0])
