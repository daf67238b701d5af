"""Non-local means: every pixel becomes the mean of those around it that look alike."""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from purifiers.base import Purifier, PurifierError
from purifiers.opponent import to_opponent, to_rgb

_PATCH = 1
"""Pixels to each side of the one compared: patches of 3x3."""


class NonLocalMeans(Purifier):
    """Weighted mean over a square window; weights fall with the distance between 3x3 patches.

    A pixel whose patch differs by d (root mean square) has the weight exp(-d^2 / h^2), the pixel
    itself the weight 1. Three channels are taken as RGB: brightness and the two colour differences
    are averaged apart, each by its own likeness; other channel counts one by one. Edges are
    repeated. The cost grows with the square of the radius.

    Args:
        h: the difference forgiven, above 0 and at most 1; values are in [0, 1].
        chroma: how much more of it to forgive in the colour differences, at least 1.
        radius: pixels searched to each side, 1 to 10.

    Measured on CIFAR-10 (ResNet-20, 1000 clean images, 160 to 200 of each attack, none adaptive):
    keeps 0.97 of the clean accuracy and answers rightly on 0.33 / 0.00 of PGD 2 / 8, 0.24 of smooth
    PGD 8, 0.91 of C&W, 0.84 of Square: dominated by `tv` and `wavelet` at several times their cost.

    Source: Buades, Coll, Morel, CVPR 2005; Xu, Evans, Qi, NDSS 2018 (arXiv 1704.01155), 3.2,
    against adversarial images. Known adaptive break: He et al., WOOT 2017 (arXiv 1706.04701); the
    means are differentiable, so plain PGD goes through them.
    """

    name: ClassVar[str] = "non_local_means"

    def __init__(self, h: float = 0.04, chroma: float = 2.0, radius: int = 2) -> None:
        if isinstance(h, bool) or not isinstance(h, (int, float)) or not 0 < h <= 1:
            raise PurifierError(f"non_local_means: h must be above 0 and at most 1, not {h!r}")
        if isinstance(chroma, bool) or not isinstance(chroma, (int, float)) or not chroma >= 1:
            raise PurifierError(f"non_local_means: chroma must be at least 1, not {chroma!r}")
        if radius not in range(1, 11):
            raise PurifierError(f"non_local_means: radius must be 1 to 10, not {radius!r}")
        self.h = float(h)
        self.chroma = float(chroma)
        self.radius = int(radius)

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return f"non_local_means(h={self.h:g}, chroma={self.chroma:g}, radius={self.radius})"

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        batch, channels, height, width = x.shape
        if channels != 3:
            planes = x.reshape(batch * channels, 1, height, width)
            return self._averaged(planes, self.h).view(x.shape)
        planes = to_opponent(x)
        bright = self._averaged(planes[:, :1], self.h)
        colour = self._averaged(planes[:, 1:], self.h * self.chroma)
        return to_rgb(torch.cat((bright, colour), dim=1))

    def _averaged(self, x: Tensor, h: float) -> Tensor:
        """Planes (N, C, H, W) whose C channels share one set of weights."""
        height, width = x.shape[2:]
        reach = self.radius
        side = 2 * _PATCH + 1
        frame = (reach + _PATCH,) * 4
        padded = F.pad(x, frame, mode="replicate")
        patches = padded[
            ..., reach : reach + height + 2 * _PATCH, reach : reach + width + 2 * _PATCH
        ]
        total, weights = x, torch.ones_like(x[:, :1])
        for down, right in itertools.product(range(2 * reach + 1), repeat=2):
            if (down, right) == (reach, reach):
                continue
            moved = padded[
                ..., down : down + height + 2 * _PATCH, right : right + width + 2 * _PATCH
            ]
            square = (patches - moved).square().mean(1, keepdim=True)
            weight = torch.exp(F.avg_pool2d(square, side, 1) / -(h * h))  # (N, 1, H, W)
            total = total + weight * moved[..., _PATCH:-_PATCH, _PATCH:-_PATCH]
            weights = weights + weight
        return total / weights
