"""Parts with a trained network: how it is built and trained, and how it gets its weights.

Detectors and purifiers may share a network: those whose recipes have equal names get the same
weights. The training loop itself is `tuning.train`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Lesson:
    """One batch to learn from."""

    x: Tensor
    """Clean inputs, (B, C, H, W) float32 in [0, 1]."""
    varied: Tensor
    """The same inputs, each under one benign variation chosen at random (often none)."""
    answers: Tensor | None = None
    """The model's answers to `x`, (B, K) logits or log-probabilities."""
    attacked: Tensor | None = None
    """Guided recipes: adversarial versions of `x` against a local copy of the model."""
    model: Callable[[Tensor], Tensor] | None = None
    """Guided recipes: the local copy, (B, C, H, W) -> (B, K) logits, differentiable. None with
    crops, which it does not take: a loss that asks it needs `Recipe.whole`."""


class Recipe(ABC):
    """How one network is built and trained."""

    name: ClassVar[str]
    """Name of the weights, [a-z_]+."""
    guided: ClassVar[bool] = False
    """Whether training takes a local copy of the model."""
    needs_answers: ClassVar[bool] = False
    """Whether training takes the model's answers to the clean inputs."""
    whole: ClassVar[bool] = False
    """Whether it must see whole images. Otherwise large ones (`tuning.lessons`) are trained on in
    random crops, which is for fully convolutional networks."""
    steps: ClassVar[int]
    """Batches trained on by default."""
    batch: ClassVar[int] = 64
    rate: ClassVar[float] = 1e-3
    """Peak learning rate of Adam; a one-cycle schedule leads up to it and down to 0."""

    @abstractmethod
    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A fresh network.

        Args:
            shape: of one sample, (C, H, W).
            classes: answers of the model; 0 where nobody knows.
        """

    @abstractmethod
    def loss(self, network: nn.Module, lesson: Lesson, generator: torch.Generator) -> Tensor:
        """The training loss of one batch, a scalar."""


class Learned:
    """Mixin of detectors and purifiers that use a trained network."""

    name: ClassVar[str]
    recipe: ClassVar[Recipe]
    _network: nn.Module | None = None

    def use(self, network: nn.Module) -> None:
        """Take the trained network, already on its device and in evaluation mode."""
        self._network = network

    @property
    def network(self) -> nn.Module | None:
        """The trained network; None before `use`."""
        return self._network

    def trained(self, error: type[Exception]) -> nn.Module:
        """Return the network, or raise the given error, which says how to get one."""
        if self._network is None:
            raise error(
                f"{self.name} has no weights {self.recipe.name!r}; `breakwater fit` makes them"
            )
        return self._network
