"""The purifier contract: a transformation of a batch of images that keeps shape and range."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from torch import Tensor


class PurifierError(ValueError):
    """A purifier was built with parameters outside their range, or broke its own contract."""


class Purifier(ABC):
    """Maps images to images that keep their meaning and lose (some) adversarial structure.

    Purifiers are deterministic. They also serve detectors as *views*: transformed copies whose
    answers by the model are compared with the answer to the original.
    """

    name: ClassVar[str]
    """Configuration key and metric label, [a-z_]+."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Name and parameters, e.g. `bit_depth(bits=5)`; equal keys mean equal transformations."""

    @final
    def purify(self, x: Tensor) -> Tensor:
        """Return the purified copies; `x` is not modified.

        Args:
            x: (B, C, H, W) float32 in [0, 1]; B may be 0, C is 1 or 3 (others where stated).

        Returns:
            (B, C, H, W) float32 in [0, 1], on the same device.
        """
        with torch.inference_mode():
            y = self._purify(x)
        if y.shape != x.shape or y.dtype != x.dtype:
            raise PurifierError(
                f"{self.key} returned {tuple(y.shape)} {y.dtype} for {tuple(x.shape)} {x.dtype}"
            )
        return y.clamp(0.0, 1.0)

    @abstractmethod
    def _purify(self, x: Tensor) -> Tensor: ...

    def __repr__(self) -> str:
        return self.key
