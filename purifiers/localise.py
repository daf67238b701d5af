"""Where in an image something stands out: dense fine texture against the image's own."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 0.25
"""Side of a window as a share of the image's shorter side: a patch of 1/16 of the area fills it
(8x8 in 32x32, 50x50 in 224x224)."""
_SMALL = 64
"""Image side up to which two products with matrices are faster than sums of neighbours: 2 calls
for 11, but their work grows with the cube of the side."""
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
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    # White noise of variance v has energy v: the taps (1, -2, 1) twice square to 36.
    energy = (_second(_second(padded, 2), 3).square() / 36).mean(1)
    texture = local_texture(energy, share)
    return texture - lower_median(texture.flatten(1))[:, None, None]


def local_texture(energy: Tensor, share: float = WINDOW) -> Tensor:
    """Mean log energy of the window around each pixel, cut at the border, (B, H, W).

    Args:
        energy: of each pixel, (B, H, W), in squared units of a range of 1.
        share: as in `localise`.
    """
    height, width = energy.shape[1:]
    window = 2 * round(share * min(height, width) / 2) + 1
    logs = (energy + _FLOOR).log()
    if max(height, width) <= _SMALL:
        down, across = (_means(side, window, energy.device) for side in (height, width))
        return down @ (logs @ across.T)
    reach = window // 2
    padded = F.pad(logs, (reach, reach, reach, reach))
    sums = _sums(_sums(padded, window, -1), window, -2)
    return sums * _shares(height, width, window, energy.device)


def lower_median(values: Tensor) -> Tensor:
    """The median of each row, the lower of two, (B,) for (B, N)."""
    if values.device.type != "cpu" or not torch.is_inference_mode_enabled() or not len(values):
        return values.median(dim=1).values
    # A quarter less time than torch.median. NaN sorts last here: the caller's sums keep it.
    middle = (values.shape[1] - 1) // 2
    return torch.from_numpy(np.partition(values.numpy(), middle, axis=1)[:, middle])


def _second(x: Tensor, dim: int) -> Tensor:
    """Second difference along an axis, two shorter."""
    size = x.shape[dim] - 2
    return x.narrow(dim, 0, size) - 2 * x.narrow(dim, 1, size) + x.narrow(dim, 2, size)


def _sums(x: Tensor, window: int, dim: int) -> Tensor:
    """Sums of `window` neighbours, an odd number, along an axis; window - 1 shorter.

    Sums of 2, 4, 8, ... neighbours follow from each other, and add up to any number: 8 additions
    for 57, where pooling takes 57.
    """
    size = x.shape[dim] - window + 1
    total, done = x.narrow(dim, 0, size), 1  # windows are odd
    run = 1
    while done < window:
        longer = x.shape[dim] - run
        x = x.narrow(dim, 0, longer) + x.narrow(dim, run, longer)
        run *= 2
        if window & run:
            total = total + x.narrow(dim, done, size)
            done += run
    return total


@cache
def _means(side: int, window: int, device: torch.device) -> Tensor:
    """Means of the window around each pixel of a line, cut at the ends, (side, side)."""
    # Also for passes with gradients, which take no tensor made in inference mode.
    with torch.inference_mode(mode=False):
        at = torch.arange(side)
        within = ((at[:, None] - at).abs() <= window // 2).double()
        return (within / within.sum(1, keepdim=True)).float().to(device)


@cache
def _shares(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """One over the number of pixels in the window around each pixel, (H, W)."""
    with torch.inference_mode(mode=False):
        down, across = (_means(side, window, device).amax(1) for side in (height, width))
        return down[:, None] * across
