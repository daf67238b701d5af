"""Total-variation denoising: the nearest image with less of up and down in it."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from purifiers.base import Purifier, PurifierError
from purifiers.opponent import to_opponent, to_rgb
from purifiers.pieces import in_pieces

_STEP = 1 / 8
"""Largest step that converges: the squared norm of the discrete gradient is at most 8."""
_TINY = 1e-12
"""Keeps the gradient of a square root finite where an image is flat."""


class TotalVariation(Purifier):
    """Minimises |y - x|^2 / 2 + weight TV(y), per image (the Rudin-Osher-Fatemi model).

    Isotropic, solved on the dual by accelerated projected gradient with a fixed number of steps.
    Three channels are taken as RGB and smoothed as brightness and colour differences, the
    differences more strongly; other channel counts one by one.

    Args:
        weight: of the variation in brightness, above 0 and at most 1; values are in [0, 1].
        chroma: how much more it weighs in the colour differences, at least 1.
        steps: 1 to 200.

    Measured on CIFAR-10 (ResNet-20, 1000 clean images, 160 to 200 of each attack, none adaptive):
    keeps 0.98 of the clean accuracy and answers rightly on 0.46 / 0.04 of PGD 2 / 8, 0.47 of smooth
    PGD 8, 0.93 of C&W, 0.86 of Square; weight 0.04 keeps 0.94. After `jpeg` with quality 75 and
    `subsample`: 0.96 kept, 0.78 / 0.28, 0.65, 0.92, 0.83; and with `mirror` before both, the best
    single answer found without training: 0.97 kept, 0.85 / 0.59, 0.76, 0.91, 0.84.

    Source: Rudin, Osher, Fatemi, Physica D 60, 1992; Chambolle, JMIV 20, 2004, the dual; Beck and
    Teboulle, IEEE Trans. Image Process. 18(11), 2009, 4.1, the acceleration; Guo et al., ICLR 2018
    (arXiv 1711.00117), against adversarial images. Known adaptive break: Athalye et al., ICML 2018
    (arXiv 1802.00420, 5.3.1); every step is differentiable, so plain PGD goes through it.
    """

    name: ClassVar[str] = "tv"

    def __init__(self, weight: float = 0.02, chroma: float = 3.0, steps: int = 10) -> None:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight <= 1:
            raise PurifierError(f"tv: weight must be above 0 and at most 1, not {weight!r}")
        if isinstance(chroma, bool) or not isinstance(chroma, (int, float)) or not chroma >= 1:
            raise PurifierError(f"tv: chroma must be at least 1, not {chroma!r}")
        if steps not in range(1, 201):
            raise PurifierError(f"tv: steps must be 1 to 200, not {steps!r}")
        self.weight = float(weight)
        self.chroma = float(chroma)
        self.steps = int(steps)

    @property
    def key(self) -> str:
        """See `Purifier.key`."""
        return f"tv(weight={self.weight:g}, chroma={self.chroma:g}, steps={self.steps})"

    def _purify(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if x.numel() == 0:
            return x.clone()
        return in_pieces(self._denoised, x)

    def _denoised(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            return self._smoothed(x, x.new_tensor(self.weight))
        weights = self.weight * x.new_tensor([1, self.chroma, self.chroma])
        return to_rgb(self._smoothed(to_opponent(x), weights.view(3, 1, 1)))

    def _smoothed(self, x: Tensor, weight: Tensor) -> Tensor:
        """Each plane of (B, C, H, W) on its own."""
        down, right = _differences(x)
        dual = torch.zeros_like(down), torch.zeros_like(right)
        ahead, momentum = dual, 1.0
        for _ in range(self.steps):
            down, right = _differences(x + weight * _divergence(*ahead))
            moved = ahead[0] + _STEP / weight * down, ahead[1] + _STEP / weight * right
            # Back into the unit disc, pixel by pixel.
            length = (moved[0].square() + moved[1].square()).clamp(min=_TINY).sqrt().clamp(min=1)
            moved = moved[0] / length, moved[1] / length
            following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            share = (momentum - 1) / following
            ahead = (
                moved[0] + share * (moved[0] - dual[0]),
                moved[1] + share * (moved[1] - dual[1]),
            )
            dual, momentum = moved, following
        return x + weight * _divergence(*dual)


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """To the next row and to the next column, 0 at the end: (B, C, H, W) each."""
    return F.pad(x.diff(dim=2), (0, 0, 0, 1)), F.pad(x.diff(dim=3), (0, 1))


def _divergence(down: Tensor, right: Tensor) -> Tensor:
    """Minus the adjoint of `_differences`; what the last row and column hold is always 0."""
    return F.pad(down, (0, 0, 1, 0)).diff(dim=2) + F.pad(right, (1, 0)).diff(dim=3)
