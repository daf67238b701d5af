"""Benign variations of waveforms: what microphones, codecs and pipelines do."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_TAPS = 31
"""Of the low-pass, at most; shorter waveforms get a shorter filter."""
_MU = 255.0
"""Companding of telephone audio, ITU-T G.711."""
_SHIFT = 0.1
"""Longest shift, as a share of the length."""

_Vary = Callable[[Tensor, torch.Generator], Tensor]


def variations(x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the groups beside the clean waves: name -> (N, C, T) float32, rounded to 16 bits."""
    return {
        name: (vary(x, generator).clamp(-1, 1) * 32768).round() / 32768
        for name, vary in _VARIATIONS.items()
    }


def _uniform(x: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """One value a waveform, uniform in [low, high), (N, 1, 1)."""
    drawn = low + (high - low) * torch.rand(len(x), 1, 1, generator=generator)
    return drawn.to(x.device)


def _noise(low: float, high: float) -> _Vary:
    """White noise at signal-to-noise ratios between these, in decibels."""

    def vary(x: Tensor, generator: torch.Generator) -> Tensor:
        power = x.square().mean(dim=(1, 2), keepdim=True).sqrt()
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        return x + noise * power * 10 ** (-_uniform(x, low, high, generator) / 20)

    return vary


def _gain(low: float, high: float) -> _Vary:
    """Louder or quieter, in decibels; what leaves full scale is clipped."""
    return lambda x, generator: x * 10 ** (_uniform(x, low, high, generator) / 20)


def _shift(x: Tensor, generator: torch.Generator) -> Tensor:
    """Earlier or later by up to a tenth of the length, silence in the gap."""
    count, _, length = x.shape
    most = int(_SHIFT * length)
    by = torch.randint(-most, most + 1, (count, 1), generator=generator).to(x.device)
    source = torch.arange(length, device=x.device) - by  # (N, T)
    there = ((source >= 0) & (source < length))[:, None]
    moved = x.gather(2, source.clamp(0, length - 1)[:, None].expand(x.shape))
    return torch.where(there, moved, 0.0)


def _low_pass(x: Tensor, generator: torch.Generator) -> Tensor:
    """Cut off between a half and nine tenths of the band, windowed sinc, edges repeated."""
    count, channels, length = x.shape
    if not count:
        return x
    side = min(_TAPS, length) // 2
    n = torch.arange(-side, side + 1, device=x.device)
    cutoff = _uniform(x, 0.5, 0.9, generator)[:, 0]  # (N, 1), of half the sampling rate
    window = 0.5 + 0.5 * torch.cos(math.pi * n / (side + 1))
    taps = torch.sinc(cutoff * n) * window
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    padded = F.pad(x, (side, side), mode="replicate").reshape(1, count * channels, -1)
    return F.conv1d(padded, taps, groups=count * channels).view_as(x)


def _eight_bit(x: Tensor, generator: torch.Generator) -> Tensor:
    return (x * 128).round() / 128


def _mu_law(x: Tensor, generator: torch.Generator) -> Tensor:
    """Telephone companding to 8 bits and back."""
    packed = x.sign() * torch.log1p(_MU * x.abs()) / math.log1p(_MU)
    packed = (packed * 127).round() / 127
    return packed.sign() * torch.expm1(packed.abs() * math.log1p(_MU)) / _MU


_VARIATIONS: dict[str, _Vary] = {
    "weak_noise": _noise(30, 45),
    "strong_noise": _noise(20, 30),
    "quieter": _gain(-12, 0),
    "louder": _gain(0, 6),
    "shift": _shift,
    "low_pass": _low_pass,
    "eight_bit": _eight_bit,
    "mu_law": _mu_law,
}
