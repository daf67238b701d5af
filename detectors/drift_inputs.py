"""Cheap statistics of inspected inputs, for telling whether a population of them has changed."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from detectors.photometry import luma
from purifiers.base import Kind, kind_of

IMAGE_NAMES = ("brightness", "contrast", "saturation", "fine_detail", "clipped")
WAVEFORM_NAMES = ("level", "peak", "crossings", "clipped")
VECTOR_NAMES = ("mean", "spread", "largest", "zeros")

_EDGE = 1 / 512
"""Half a step of 8 bits: what lies nearer to an end of the range is clipped."""
_LEAST = 1e-12


def input_statistics(x: Tensor) -> dict[str, Tensor]:
    """One number a sample and statistic, (B,) float32 on the device of `x`.

    Images: mean luma, its standard deviation, mean difference of the largest and the smallest
    channel, the share of the variance that a 3x3 mean takes away, and the share of values at either
    end of the range. Waveforms: root mean square, largest absolute value, sign changes a step, and
    the share at full scale. Vectors: mean, standard deviation, largest absolute value, and the
    share of exact zeros. What is not finite in the input gives what is not finite here.

    Args:
        x: images (B, C, H, W) in [0, 1], waveforms (B, C, T) in [-1, 1] or vectors (B, D).
    """
    kind = kind_of(x)
    if kind is Kind.VECTOR:
        return _vectors(x)
    return _waveforms(x) if kind is Kind.WAVEFORM else _images(x)


def _images(x: Tensor) -> dict[str, Tensor]:
    grey = luma(x)[:, 0]  # (B, H, W)
    smooth = F.avg_pool2d(F.pad(grey[:, None], (1,) * 4, mode="replicate"), 3, 1)[:, 0]
    mean = grey.mean((1, 2))
    spread = (grey - mean[:, None, None]).square().mean((1, 2))  # var warns of an empty batch
    detail = (grey - smooth).square().mean((1, 2)) / (spread + _LEAST)
    return {
        "brightness": mean,
        "contrast": spread.sqrt(),
        "saturation": (x.amax(1) - x.amin(1)).mean((1, 2)),
        "fine_detail": detail,
        "clipped": ((x <= _EDGE) | (x >= 1 - _EDGE)).float().mean((1, 2, 3)) + 0 * detail,
    }


def _waveforms(x: Tensor) -> dict[str, Tensor]:
    level = x.square().mean((1, 2)).sqrt()
    signs = x[..., 1:].sign() != x[..., :-1].sign()
    return {
        "level": level,
        "peak": x.abs().amax((1, 2)),
        "crossings": signs.float().mean((1, 2)) + 0 * level,
        "clipped": (x.abs() >= 1 - _EDGE).float().mean((1, 2)) + 0 * level,
    }


def _vectors(x: Tensor) -> dict[str, Tensor]:
    mean = x.mean(1)
    return {
        "mean": mean,
        "spread": (x - mean[:, None]).square().mean(1).sqrt(),
        "largest": x.abs().amax(1),
        "zeros": (x == 0).float().mean(1) + 0 * mean,
    }
