"""Random choices of one generator, said briefly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")


class Dice:
    """Draws from a generator on the CPU.

    Args:
        generator: of all that is drawn.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def between(self, low: float, high: float) -> float:
        """A number uniform in [low, high)."""
        return float(self.several(1, low, high))

    def several(self, count: int, low: float, high: float) -> Tensor:
        """Numbers uniform in [low, high), (count,)."""
        return low + (high - low) * torch.rand(count, generator=self._generator)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self._generator)

    def whole(self, low: int, high: int) -> int:
        """A whole number, low and high included."""
        return int(self.wholes(1, low, high))

    def wholes(self, count: int, low: int, high: int) -> Tensor:
        """Whole numbers, low and high included, (count,)."""
        return torch.randint(low, high + 1, (count,), generator=self._generator)

    def order(self, count: int) -> Tensor:
        """The numbers 0 to count - 1 in random order."""
        return torch.randperm(count, generator=self._generator)

    def happens(self, share: float) -> bool:
        """True in this share of all draws."""
        return self.between(0, 1) < share

    def one_of(self, options: Sequence[_T]) -> _T:
        """One of the options, all equally likely."""
        return options[self.whole(0, len(options) - 1)]
