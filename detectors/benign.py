"""Benign variations of clean inputs: for images, what ordinary cameras, encoders and pipelines do.

Detectors are fitted and thresholds set on these beside the clean images. Calibrated on pristine
images alone, input-only detectors flag every noisy image: measured on CIFAR-10, thresholds at 1 %
on clean images flagged up to 100 % of images with Gaussian noise of sigma 2/255, and up to 65 %
of images 15 % brighter.

Every image draws a strength of its own. With one fixed strength a group is a point that a one-class
model wraps tightly: with noise of sigma exactly 2/255 and 4/255 in the table below, the demo
(`breakwater demo`) flagged 77 % of its benign images, whose noise of 3/255 lies between.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors import benign_vectors, benign_waveforms
from purifiers import Jpeg
from purifiers.base import Kind, kind_of

CLEAN = "clean"

_LEAST_SIDE = 16
"""Below this many pixels a shift by one is no small thing, and the group is left out."""

_UNCHANGED = 0.25
"""Share of images that `one_each` leaves alone."""

_Vary = Callable[[Tensor, torch.Generator], Tensor]


def variations(x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the benign groups: name -> inputs of the same shape and range as `x`.

    `clean` is `x` itself; the others, for images, are rounded to 8 bits, as an image file would be.
    Sample i of every group is made from sample i of `x`. Images smaller than 16 pixels are not
    shifted. Vectors and waveforms have variations of their own (`benign_vectors`,
    `benign_waveforms`).

    Args:
        x: clean images (N, C, H, W) float32 in [0, 1], waveforms (N, C, T) in [-1, 1] or vectors
            (N, D).
        generator: source of strengths, noise and shifts, on the CPU.
    """
    kind = kind_of(x)
    if kind is Kind.VECTOR:
        return {CLEAN: x, **benign_vectors.variations(x, generator)}
    if kind is Kind.WAVEFORM:
        return {CLEAN: x, **benign_waveforms.variations(x, generator)}
    groups = {name: _rounded(vary(x, generator)) for name, vary in _VARIATIONS.items()}
    if min(x.shape[2:]) >= _LEAST_SIDE:
        groups["shift"] = _shift(x, generator)
    return {CLEAN: x, **groups}


def one_each(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image under one benign variation chosen at random, every fourth as it is.

    For training: as `variations`, of which it makes one an image and not all.

    Args:
        x: clean images, (N, C, H, W) float32 in [0, 1].
        generator: source of all choices, on the CPU.
    """
    vary = list(_VARIATIONS.values())
    if min(x.shape[2:]) >= _LEAST_SIDE:
        vary.append(_shift)
    chosen = torch.randint(len(vary), (len(x),), generator=generator)
    chosen[torch.rand(len(x), generator=generator) < _UNCHANGED] = -1
    varied = x.clone()
    for index, change in enumerate(vary):
        rows = (chosen == index).nonzero()[:, 0].to(x.device)
        if len(rows):
            varied[rows] = _rounded(change(x[rows], generator))
    return varied


def _rounded(x: Tensor) -> Tensor:
    return torch.round(x.clamp(0, 1) * 255) / 255


def _strengths(x: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """One strength an image, uniform in [low, high), (N, 1, 1, 1)."""
    drawn = low + (high - low) * torch.rand(len(x), generator=generator)
    return drawn.view(-1, 1, 1, 1).to(x.device)


def _noise(low: float, high: float) -> _Vary:
    """Gaussian noise, sigma in 1/255: sensor noise at low light and at very low light."""

    def vary(x: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        return x + noise * _strengths(x, low / 255, high / 255, generator)

    return vary


def _jpeg(*qualities: int) -> _Vary:
    """Compressed at one of the qualities."""

    def vary(x: Tensor, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(qualities), (len(x),), generator=generator).to(x.device)
        varied = x.clone()
        for index, quality in enumerate(qualities):
            varied[chosen == index] = Jpeg(quality=quality).purify(x[chosen == index])
        return varied

    return vary


def _brightness(low: float, high: float) -> _Vary:
    return lambda x, generator: x * _strengths(x, low, high, generator)


def _contrast(low: float, high: float) -> _Vary:
    """Values stretched about each image's own mean."""

    def vary(x: Tensor, generator: torch.Generator) -> Tensor:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        return mean + _strengths(x, low, high, generator) * (x - mean)

    return vary


def _blur(x: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian blur, sigma 0.3 to 0.7 pixels, edges repeated."""
    count, channels, height, width = x.shape
    if not count:
        return x
    sigma = _strengths(x, 0.3, 0.7, generator).view(-1, 1)
    taps = torch.exp(-(torch.arange(-2.0, 3.0, device=x.device) ** 2) / (2 * sigma**2))  # (N, 5)
    taps = taps / taps.sum(1, keepdim=True)
    kernels = (taps[:, :, None] * taps[:, None]).repeat_interleave(channels, 0)[:, None]
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate").reshape(1, -1, height + 4, width + 4)
    return F.conv2d(padded, kernels, groups=count * channels).view_as(x)


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


_VARIATIONS: dict[str, _Vary] = {
    "weak_noise": _noise(0.5, 2.5),
    "strong_noise": _noise(2.5, 5.0),
    "strong_jpeg": _jpeg(65, 70, 75, 80),
    "weak_jpeg": _jpeg(85, 90, 95),
    "brighter": _brightness(1.0, 1.2),
    "darker": _brightness(0.8, 1.0),
    "more_contrast": _contrast(1.0, 1.2),
    "less_contrast": _contrast(0.8, 1.0),
    "blur": _blur,
}
