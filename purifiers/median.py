"""Median smoothing over 2x2 or 3x3 windows, without unfolding or sorting whole windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from purifiers.base import Purifier, PurifierError
from purifiers.pieces import in_pieces


class Median(Purifier):
    """Replaces each value by the median of its window, per channel.

    Size 3 is centred. Size 2 covers the pixel and its left, upper and upper-left neighbours, and
    takes the mean of the two middle values, so it does not shift brightness. Border rule: edge
    values are repeated (zero padding would draw a dark frame that the model and the detectors
    would see).

    Args:
        size: 2 or 3.

    Source: Xu, Evans, Qi, NDSS 2018 (arXiv 1704.01155), 3.2. Known adaptive break: He et al.,
    WOOT 2017 (arXiv 1706.04701); medians have useful gradients, so plain PGD goes through them.
    """

    name: ClassVar[str] = "median"

    def __init__(self, size: int = 2) -> None:
        if size not in (2, 3):
            raise PurifierError(f"median: size must be 2 or 3, not {size!r}")
        self.size = int(size)

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return f"median(size={self.size})"

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return in_pieces(_median_2x2 if self.size == 2 else _median_3x3, x)


def _median_2x2(x: Tensor) -> Tensor:
    """Mean of the middle two of each 2x2 window ending at the pixel, (B, C, H, W)."""
    padded = F.pad(x, (1, 0, 1, 0), mode="replicate")  # (B, C, H+1, W+1)
    above, here = padded[..., :-1, :], padded[..., 1:, :]
    low, high = torch.minimum(above, here), torch.maximum(above, here)  # (B, C, H, W+1)
    # Of two sorted pairs, the middle values are the larger low and the smaller high.
    inner_low = torch.maximum(low[..., :-1], low[..., 1:])
    inner_high = torch.minimum(high[..., :-1], high[..., 1:])
    return (inner_low + inner_high) / 2


def _median_3x3(x: Tensor) -> Tensor:
    """Median of each centred 3x3 window, (B, C, H, W).

    Columns are sorted once and shared by the three windows they belong to; the median of nine is
    the median of (largest of the lows, median of the middles, smallest of the highs).
    """
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")  # (B, C, H+2, W+2)
    top, mid, bottom = padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :]
    low, high = torch.minimum(top, mid), torch.maximum(top, mid)  # (B, C, H, W+2)
    middle, high = torch.minimum(high, bottom), torch.maximum(high, bottom, out=_over(high))
    low, middle = torch.minimum(low, middle), torch.maximum(low, middle, out=_over(middle))
    return _median_of_three(
        _folded(torch.maximum, low),
        _median_of_three(middle[..., :-2], middle[..., 1:-1], middle[..., 2:]),
        _folded(torch.minimum, high),
    )


def _folded(pick: Callable[..., Tensor], values: Tensor) -> Tensor:
    """The least or largest of every three neighbours in a row, (B, C, H, W)."""
    two = pick(values[..., :-2], values[..., 1:-1])
    return pick(two, values[..., 2:], out=_over(two))


def _median_of_three(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    high = torch.maximum(a, b)
    middle = torch.minimum(high, c, out=_over(high))
    return torch.maximum(torch.minimum(a, b), middle, out=_over(middle))


def _over(values: Tensor) -> Tensor | None:
    """Where a result may overwrite values: fewer of them then leave the cache."""
    return values if torch.is_inference_mode_enabled() else None
