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

import functools
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
    groups = {name: rounded(vary(x, generator)) for name, vary in _VARIATIONS.items()}
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
            varied[rows] = rounded(change(x[rows], generator))
    return varied


def rounded(x: Tensor) -> Tensor:
    """The nearest values in [0, 1] that 8 bits can hold."""
    return torch.round(x.clamp(0, 1) * 255) / 255


def compressed(x: Tensor, qualities: Tensor, *, subsample: bool = False) -> Tensor:
    """Each image as JPEG at its own quality would leave it.

    Args:
        x: (N, C, H, W) in [0, 1].
        qualities: (N,) of integers, 1 to 100.
        subsample: chroma at half resolution.
    """
    varied = x.clone()
    for quality in qualities.unique().tolist():
        varied[qualities == quality] = _coder(quality, subsample).purify(x[qualities == quality])
    return varied


@functools.lru_cache(maxsize=256)
def _coder(quality: int, subsample: bool) -> Jpeg:
    """Its matrices take longer to make than a batch of small images to code."""
    return Jpeg(quality=quality, subsample=subsample)


def blurred(x: Tensor, sigmas: Tensor, radius: int = 2) -> Tensor:
    """Each image under a Gaussian blur of its own, edges repeated.

    Args:
        x: (N, C, H, W).
        sigmas: (N,) in pixels, above 0; up to a third of the radius nothing is cut off.
        radius: of the filter, in pixels.
    """
    count, channels, height, width = x.shape
    if not count:
        return x
    at = torch.arange(-float(radius), radius + 1.0, device=x.device)
    taps = torch.exp(-(at**2) / (2 * sigmas.view(-1, 1) ** 2))  # (N, 2 * radius + 1)
    taps = taps / taps.sum(1, keepdim=True)
    kernels = (taps[:, :, None] * taps[:, None]).repeat_interleave(channels, 0)[:, None]
    padded = F.pad(x, (radius,) * 4, mode="replicate")
    padded = padded.reshape(1, -1, height + 2 * radius, width + 2 * radius)
    return F.conv2d(padded, kernels, groups=count * channels).view_as(x)


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
        chosen = torch.randint(len(qualities), (len(x),), generator=generator)
        return compressed(x, torch.tensor(qualities)[chosen].to(x.device))

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
    return blurred(x, _strengths(x, 0.3, 0.7, generator))


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
