"""Where in an image something stands out: dense fine texture against the image's own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

WINDOW = 0.25
"""Side of a window as a share of the image's shorter side: a patch of 1/16 of the area fills it
(8x8 in 32x32, 50x50 in 224x224)."""
_FLOOR = (4 / 255) ** 2
"""Energy added before the logarithm. Without it the rounding noise of a flat image is the scale."""


def localise(x: Tensor, share: float = WINDOW) -> Tensor:
    """Return how far the texture around each pixel exceeds the image's own, (B, H, W).

    The evidence of a window is the mean log energy of a diagonal second difference in it, less the
    median over the image. The mean of logarithms asks for texture everywhere in the window: an
    edge or a bright dot, however strong, is a few of its pixels. (Means of plain energies
    alarmed on 73 % of images rotated with black corners, these on none, and both on every patch.)

    Args:
        x: (B, C, H, W) in [0, 1].
        share: side of the window as a share of the shorter side, rounded to odd pixels.

    Returns:
        About 0 at most pixels; on CIFAR-10, the maximum of 99 % of benign images is below 1.7,
        and of every 8x8 patch (PGD, any value) above 4.

    Source: local gradients as the mark of patches, Naseer et al., WACV 2019 (arXiv 1807.01216).
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    # White noise of variance v has energy v: the taps (1, -2, 1) twice square to 36.
    energy = (_second(_second(padded, 2), 3).square() / 36).mean(1, keepdim=True)
    window = 2 * round(share * min(height, width) / 2) + 1
    texture = _mean((energy + _FLOOR).log(), window)[:, 0]  # (B, H, W)
    return texture - texture.flatten(1).median(dim=1).values[:, None, None]


def _second(x: Tensor, dim: int) -> Tensor:
    """Second difference along an axis, two shorter."""
    size = x.shape[dim] - 2
    return x.narrow(dim, 0, size) - 2 * x.narrow(dim, 1, size) + x.narrow(dim, 2, size)


def _mean(plane: Tensor, window: int) -> Tensor:
    """Mean over a window around each pixel, cut at the border, (B, 1, H, W)."""
    reach = window // 2
    down = F.avg_pool2d(plane, (window, 1), 1, (reach, 0), count_include_pad=False)
    return F.avg_pool2d(down, (1, window), 1, (0, reach), count_include_pad=False)
