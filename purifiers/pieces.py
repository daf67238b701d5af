"""Batches in pieces that fit the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_VALUES = 2**17
"""Values in a piece, 512 KB. Many passes over a batch that leaves the cache cost twice: 32 images
of 3x224x224, CPU milliseconds an image, whole / in pieces of one: wavelet 9.7 / 5.9, total
variation 25.6 / 12.9 (Xeon, one thread)."""


def in_pieces(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function that treats samples alone; on the CPU, to a few samples at a time.

    Args:
        function: (B, ...) -> (B, ...), for any B.
        x: (B, ...).
    """
    if x.numel() <= _VALUES or len(x) == 1 or x.device.type != "cpu":
        return function(x)
    size = max(1, _VALUES // math.prod(x.shape[1:]))
    return torch.cat([function(piece) for piece in x.split(size)])
