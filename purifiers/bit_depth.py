"""Bit-depth reduction: keep the B most significant levels of each value."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from purifiers.base import Purifier, PurifierError


class BitDepth(Purifier):
    """Rounds every value to the nearest of 2^bits evenly spaced levels, 0 and 1 included.

    Idempotent. Ties go to the even level.

    Args:
        bits: 1 to 8.

    Source: Xu, Evans, Qi, NDSS 2018 (arXiv 1704.01155), 3.1. As a purifier it is dominated by
    JPEG and the median; it earns its place as a view. Known adaptive break: He et al., WOOT 2017
    (arXiv 1706.04701); rounding is passed by a straight-through gradient (Athalye et al., ICML
    2018, arXiv 1802.00420).
    """

    name: ClassVar[str] = "bit_depth"

    def __init__(self, bits: int = 5) -> None:
        if bits not in range(1, 9):
            raise PurifierError(f"bit_depth: bits must be 1 to 8, not {bits!r}")
        self.bits = int(bits)

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return f"bit_depth(bits={self.bits})"

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        levels = 2.0**self.bits - 1
        return torch.round(x * levels) / levels
