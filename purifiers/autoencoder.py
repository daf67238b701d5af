"""Bottleneck autoencoder: rebuilds an image from a code too small for its fine structure."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from purifiers.base import Purifier, PurifierError
from purifiers.denoiser import with_noise
from purifiers.learned import Learned, Lesson, Recipe
from purifiers.networks import Bottleneck
from purifiers.pieces import in_pieces

_STRONGEST = 8 / 255
"""Largest noise amplitude trained on."""
_WIDTHS, _LATENT = (16, 48, 96), 24


class AutoencoderRecipe(Recipe):
    """Images and their benign variations, from the same under noise. Benign-only."""

    name: ClassVar[str] = "autoencoder"
    steps: ClassVar[int] = 900
    rate: ClassVar[float] = 2e-3

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """See `Recipe.build`."""
        return Bottleneck(shape[0], _WIDTHS, _LATENT)

    def loss(self, network: nn.Module, lesson: Lesson, generator: torch.Generator) -> Tensor:
        """Mean absolute error against the images without noise."""
        restored: Tensor = network(with_noise(lesson.varied, _STRONGEST, generator))
        return (restored - lesson.varied).abs().mean()


class Autoencoder(Learned, Purifier):
    """A network that draws the image anew from a narrow code.

    The best of the purifiers trained without adversarial images against strong PGD and patches,
    because it cannot carry what it has not seen; for the same reason it costs clean accuracy.

    Source: Meng and Chen, CCS 2017 (arXiv 1705.09064), 3.4. Known adaptive break: Carlini and
    Wagner 2017 (arXiv 1711.08478); gradients pass through the network.
    """

    name: ClassVar[str] = "autoencoder"
    recipe: ClassVar[Recipe] = AutoencoderRecipe()

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return self.name

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return in_pieces(self.trained(PurifierError), x)
