"""Guided denoiser: a network that restores the model's answer, not only the picture."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purifiers.base import Purifier, PurifierError
from purifiers.learned import Learned, Lesson, Recipe
from purifiers.networks import Unet
from purifiers.pieces import in_pieces

_WIDTHS = (16, 32, 64, 96)
_PIXELS = 0.01
"""Weight of the pixel error, in 1/255, beside the error of the answer: it keeps the picture, and is
too small to stand in the way of the answer."""


class GuidedDenoiserRecipe(Recipe):
    """Clean answers from attacked images; unchanged answers from those that were not attacked.

    Four of five images are attacked or occluded, and the model's answer to the restored image must
    be that to the clean one. The fifth is benign, varied, and its answer must be kept.
    """

    name: ClassVar[str] = "guided_denoiser"
    guided: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    steps: ClassVar[int] = 800
    batch: ClassVar[int] = 32
    rate: ClassVar[float] = 5e-3

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """See `Recipe.build`."""
        return Unet(shape[0], _WIDTHS)

    def loss(self, network: nn.Module, lesson: Lesson, generator: torch.Generator) -> Tensor:
        """Errors of the model's answer, relative to its mean absolute size, and of the pixels.

        Small errors count by their square. With absolute errors throughout, as in the paper,
        leaving every image alone is a local minimum that a fresh network does not get out of.
        """
        if lesson.attacked is None or lesson.model is None:
            raise PurifierError(f"{self.name} needs a local model and images attacked on it")
        benign = lesson.varied[: -(-len(lesson.varied) // 4)]
        wanted = torch.cat((lesson.x, benign))
        damaged = occluded(lesson.attacked, lesson.x, generator)
        restored = network(torch.cat((damaged, benign)))
        with torch.no_grad():
            answers = _centred(lesson.model(wanted))
        scale = answers.abs().mean()
        error = F.smooth_l1_loss(_centred(lesson.model(restored)) / scale, answers / scale)
        return error + _PIXELS * F.smooth_l1_loss(restored * 255, wanted * 255)


class GuidedDenoiser(Learned, Purifier):
    """A network trained to undo attacks on the very model it protects.

    Restores answers under every attack of the ordinary kinds, those it was not trained on (CW,
    DeepFool, smooth PGD) included. It knows one model: train it again when the model changes.

    Source: Liao et al., CVPR 2018 (arXiv 1712.02976), logit-guided. Known adaptive break: Athalye
    and Carlini 2018 (arXiv 1804.03286), whose gradients through the denoiser leave no accuracy.
    """

    name: ClassVar[str] = "guided_denoiser"
    recipe: ClassVar[Recipe] = GuidedDenoiserRecipe()

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return self.name

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return in_pieces(self.trained(PurifierError), x)


def _centred(answers: Tensor) -> Tensor:
    """Answers without the constant that may be added to all logits, (B, K)."""
    return answers - answers.mean(dim=1, keepdim=True)


def occluded(attacked: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
    """Replace two of eight attacked images by occluded clean ones.

    One of them gets the traces of a Square attack: stripes of one sign per column and channel, and
    squares of one sign over them, of 4/255 to 12/255. The other gets a patch of full-range noise,
    a quarter of the sides, in blocks of 1 or 2 pixels.

    Source of the first: Andriushchenko et al., ECCV 2020 (arXiv 1912.00049), algorithms 1 and 2.
    """
    damaged = attacked.clone()
    squares, patches = slice(0, len(x) // 8), slice(len(x) // 8, len(x) // 4)
    damaged[squares] = _squared(x[squares], generator)
    damaged[patches] = _patched(x[patches], generator)
    return damaged


def _squared(x: Tensor, generator: torch.Generator) -> Tensor:
    batch, channels, height, width = x.shape
    signs = torch.randint(0, 2, (batch, channels, 1, width), generator=generator) * 2.0 - 1
    signs = signs.repeat(1, 1, height, 1)
    for image in signs:
        for _ in range(int(torch.randint(0, 12, (1,), generator=generator))):
            side = int(torch.randint(1, max(2, min(height, width) // 3), (1,), generator=generator))
            place = _box(height, width, side, generator)
            image[place] = torch.randint(0, 2, (channels, 1, 1), generator=generator) * 2.0 - 1
    strength = (4 + 8 * torch.rand(batch, 1, 1, 1, generator=generator)) / 255
    return (x + (strength * signs).to(x.device)).clamp(0, 1)


def _patched(x: Tensor, generator: torch.Generator) -> Tensor:
    channels, height, width = x.shape[1:]
    side = max(1, min(height, width) // 4)
    x = x.clone()
    for image in x:
        block = int(torch.randint(1, 3, (1,), generator=generator))
        noise = torch.rand(channels, side, side, generator=generator)
        noise = noise.repeat_interleave(block, 1).repeat_interleave(block, 2)[:, :side, :side]
        if torch.rand((), generator=generator) < 0.5:
            noise = noise.round()
        image[_box(height, width, side, generator)] = noise.to(x.device)
    return x


def _box(
    height: int, width: int, side: int, generator: torch.Generator
) -> tuple[slice, slice, slice]:
    """All channels of a square at a random place."""
    top = int(torch.randint(0, height - side + 1, (1,), generator=generator))
    left = int(torch.randint(0, width - side + 1, (1,), generator=generator))
    return slice(None), slice(top, top + side), slice(left, left + side)
