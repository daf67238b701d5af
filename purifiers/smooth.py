"""Smoothing of waveforms: the median or the mean over a short window."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from purifiers.base import Kind, Purifier, PurifierError


class Smooth(Purifier):
    """Replaces each sample by the median or mean of its window, per channel.

    The median keeps edges and removes clicks; the mean is a low-pass whose first zero lies at the
    sampling rate divided by `size`. Edge samples are repeated.

    Args:
        size: of the window in samples, odd, 3 to 31.
        how: "median" or "mean".

    Source: Yang, Li, Chen, Song, ICLR 2019 (arXiv 1809.10875), local smoothing. Known adaptive
    break: the same paper found input transformations weak against attacks that know them; medians
    and means have useful gradients, so plain PGD goes through them.
    """

    name: ClassVar[str] = "smooth"
    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.WAVEFORM})

    def __init__(self, size: int = 3, how: str = "median") -> None:
        if size not in range(3, 32, 2):
            raise PurifierError(f"smooth: size must be odd, 3 to 31, not {size!r}")
        if how not in ("median", "mean"):
            raise PurifierError(f"smooth: how must be median or mean, not {how!r}")
        self.size, self.how = int(size), how

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return f"smooth(size={self.size}, how={self.how})"

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        side = self.size // 2
        padded = F.pad(x, (side, side), mode="replicate")  # (B, C, T + size - 1)
        windows = padded.unfold(2, self.size, 1)  # (B, C, T, size)
        return windows.median(dim=3).values if self.how == "median" else windows.mean(dim=3)
