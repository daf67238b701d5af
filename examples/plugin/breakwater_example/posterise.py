"""An example of a purifier: fewer levels of brightness, with a random offset."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from purifiers import Purifier, PurifierError


class Posterise(Purifier):
    """Rounds every value to one of a few levels, whose offset each image draws for itself.

    Args:
        levels: how many there are, 2 or more.
    """

    name: ClassVar[str] = "posterise"
    is_random = True  # draws from the generator it is given, and from nothing else

    def __init__(self, levels: int = 16) -> None:
        if not isinstance(levels, int) or levels < 2:
            raise PurifierError(f"posterise: levels must be 2 or more, not {levels!r}")
        self.levels = levels

    @property
    def key(self) -> str:
        """Name and parameters: equal keys mean equal transformations."""
        return f"posterise(levels={self.levels})"

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        step = 1 / (self.levels - 1)
        # A row of numbers for each image, on the CPU: a batch equals its images one at a time.
        offset = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device) * step
        return ((x + offset) / step).floor() * step
