"""Benign variations of clean images: what ordinary cameras, encoders and pipelines do.

Detectors are fitted and thresholds set on these beside the clean images. Calibrated on pristine
images alone, input-only detectors flag every noisy image: measured on CIFAR-10, thresholds at 1 %
on clean images flagged up to 100 % of images with Gaussian noise of sigma 2/255, and up to 65 %
of images 15 % brighter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from purifiers import Jpeg

CLEAN = "clean"


def variations(x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the benign groups: name -> (N, C, H, W) float32 in [0, 1].

    `clean` is `x` itself; the others are rounded to 8 bits, as an image file would be. Sample i of
    every group is made from sample i of `x`.

    Args:
        x: clean images, (N, C, H, W) float32 in [0, 1].
        generator: source of the noise and the shifts, on the CPU.
    """
    groups = {name: _rounded(vary(x, generator)) for name, vary in _VARIATIONS.items()}
    return {CLEAN: x, **groups}


def _rounded(x: Tensor) -> Tensor:
    return torch.round(x.clamp(0, 1) * 255) / 255


def _noise(sigma: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Gaussian noise, sigma in 1/255: sensor noise at low light and at very low light."""

    def vary(x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=generator)
        return x + noise.to(x.device) * (sigma / 255)

    return vary


def _jpeg(quality: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    return lambda x, _: Jpeg(quality=quality).purify(x)


def _brightness(factor: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    return lambda x, _: x * factor


def _contrast(factor: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Values stretched about each image's own mean."""

    def vary(x: Tensor, _: torch.Generator) -> Tensor:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return mean + factor * (x - mean)

    return vary


def _blur(x: Tensor, _: torch.Generator) -> Tensor:
    """Gaussian blur of sigma 0.5 pixels, edges repeated."""
    taps = torch.exp(-(torch.arange(-2.0, 3.0, device=x.device) ** 2) / (2 * 0.5**2))
    taps = taps / taps.sum()
    channels = x.shape[1]
    kernel = torch.outer(taps, taps).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, groups=channels)


def _shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by 1 or 2 pixels along each axis (1 below 32 pixels), edges repeated."""
    count, _, height, width = x.shape
    most = 2 if min(height, width) >= 32 else 1
    size = torch.randint(1, most + 1, (2, count), generator=generator)
    sign = torch.randint(0, 2, (2, count), generator=generator) * 2 - 1
    dy, dx = (size * sign).to(x.device)
    rows = (torch.arange(height, device=x.device) + dy[:, None]).clamp(0, height - 1)  # (N, H)
    columns = (torch.arange(width, device=x.device) + dx[:, None]).clamp(0, width - 1)  # (N, W)
    sample = torch.arange(count, device=x.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    return moved.permute(0, 3, 1, 2).contiguous()


_VARIATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "noise2": _noise(2),
    "noise4": _noise(4),
    "jpeg75": _jpeg(75),
    "jpeg90": _jpeg(90),
    "brighter": _brightness(1.15),
    "darker": _brightness(0.85),
    "more_contrast": _contrast(1.15),
    "less_contrast": _contrast(0.85),
    "blur": _blur,
    "shift": _shift,
}
