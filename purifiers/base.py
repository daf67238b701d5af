"""The purifier contract: a transformation of a batch of inputs that keeps shape and range."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from typing import ClassVar, final

import torch
from torch import Tensor


class PurifierError(ValueError):
    """A purifier was built with parameters outside their range, or broke its own contract."""


class Kind(StrEnum):
    """What a tensor holds. Each kind has a number of axes of its own, the batch first."""

    IMAGE = "image"
    """(B, C, H, W) in [0, 1]."""
    WAVEFORM = "waveform"
    """(B, C, T) in [-1, 1]."""
    VECTOR = "vector"
    """(B, D), of any finite range: table rows, embeddings."""


_KINDS = {4: Kind.IMAGE, 3: Kind.WAVEFORM, 2: Kind.VECTOR}
_BOUNDS = {Kind.IMAGE: (0.0, 1.0), Kind.WAVEFORM: (-1.0, 1.0)}


def kind_of(x: Tensor) -> Kind:
    """The kind of a batch, from its axes."""
    if x.ndim not in _KINDS:
        raise PurifierError(f"no kind of input has the shape {tuple(x.shape)}")
    return _KINDS[x.ndim]


class Purifier(ABC):
    """Maps inputs to inputs that keep their meaning and lose (some) adversarial structure.

    Purifiers are deterministic unless `is_random`. They also serve detectors as *views*:
    transformed copies whose answers by the model are compared with the answer to the original.
    """

    name: ClassVar[str]
    """Configuration key and metric label, [a-z_]+."""
    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.IMAGE})
    """What it can transform."""
    is_random: bool = False
    """Whether it draws from the generator it is given."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Name and parameters, e.g. `bit_depth(bits=5)`; equal keys mean equal transformations."""

    @property
    def members(self) -> tuple[Purifier, ...]:
        """The purifiers it consists of; itself where it is not a combination."""
        return (self,)

    @final
    def purify(
        self, x: Tensor, generator: torch.Generator | None = None, *, gradients: bool = False
    ) -> Tensor:
        """Return the purified copies; `x` is not modified.

        Args:
            x: (B, C, H, W) float32 in [0, 1], or another of its `kinds`; B may be 0, C is 1 or 3
                (others where stated).
            generator: source of a random purifier's choices, on the CPU; seeded from the system's
                entropy when missing. Deterministic purifiers ignore it.
            gradients: keep the autograd graph, for attacks that look through the purifier.

        Returns:
            Same shape and range, on the same device.
        """
        if self.is_random and generator is None:
            generator = torch.Generator()
            generator.seed()
        with torch.inference_mode(not gradients):
            y = self._purify(x, generator) if generator is not None else self._purify(x)
        if y.shape != x.shape or y.dtype != x.dtype:
            raise PurifierError(
                f"{self.key} returned {tuple(y.shape)} {y.dtype} for {tuple(x.shape)} {x.dtype}"
            )
        # Outside inference mode, so that the result is a tensor like any other.
        bounds = _BOUNDS.get(kind_of(x))
        return y.clamp(*bounds) if bounds else y.clone()

    @abstractmethod
    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor: ...

    def __repr__(self) -> str:
        return self.key
