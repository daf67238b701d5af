"""Blind denoiser: a network that takes unstructured noise out of an image."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from purifiers.base import Purifier, PurifierError
from purifiers.learned import Learned, Lesson, Recipe
from purifiers.networks import Unet
from purifiers.pieces import in_pieces

_STRONGEST = 12 / 255
"""Largest noise amplitude trained on; that of an ordinary attack and a margin."""
_WIDTHS = (16, 32, 64)


class DenoiserRecipe(Recipe):
    """Clean images from noisy ones: Gaussian, sign or uniform noise of random strength.

    Benign-only. Noise is independent for each pixel and channel; images without any are among the
    strengths, so the network learns to leave those alone.
    """

    name: ClassVar[str] = "denoiser"
    steps: ClassVar[int] = 900

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """See `Recipe.build`."""
        return Unet(shape[0], _WIDTHS)

    def loss(self, network: nn.Module, lesson: Lesson, generator: torch.Generator) -> Tensor:
        """Mean absolute error against the clean images."""
        noisy = with_noise(lesson.x, _STRONGEST, generator)
        restored: Tensor = network(noisy)
        return (restored - lesson.x).abs().mean()


class Denoiser(Learned, Purifier):
    """A network trained to remove Gaussian, sign and uniform noise up to 12/255.

    Restores answers moved by unstructured noise (CW, DeepFool in part, Square). Does nothing
    against PGD, whose perturbation is structured and passes as image content: its use is as a
    view, and through the residual it removes (`detectors.denoiser_residual`).

    Source: Meng and Chen, CCS 2017 (arXiv 1705.09064), noise-trained reformer; network and
    residual learning after Zhang et al., TIP 2017 (arXiv 1608.03981). Known adaptive break:
    Carlini and Wagner 2017 (arXiv 1711.08478); gradients pass through the network.
    """

    name: ClassVar[str] = "denoiser"
    recipe: ClassVar[Recipe] = DenoiserRecipe()

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return self.name

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return in_pieces(self.trained(PurifierError), x)


def with_noise(x: Tensor, strongest: float, generator: torch.Generator) -> Tensor:
    """Add noise of a random kind and amplitude to each image, and clamp to [0, 1].

    Args:
        x: (B, C, H, W) in [0, 1].
        strongest: largest amplitude; each image draws its own below it.
        generator: source of the noise, on the CPU.
    """
    batch = len(x)
    noise = torch.randn(x.shape, generator=generator)
    kind = torch.randint(3, (batch, 1, 1, 1), generator=generator)
    noise = torch.where(kind == 1, noise.sign(), noise)
    # The normal distribution function maps to uniform noise; scaled to a variance of 1.
    noise = torch.where(kind == 2, torch.erf(noise / 2**0.5) * 3**0.5, noise)
    strength = strongest * torch.rand(batch, 1, 1, 1, generator=generator)
    return (x + (strength * noise).to(x.device)).clamp(0, 1)
