"""What sensors, settings and encoders do to the values of images; frames are (T, C, H, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.benign import blurred, compressed
from detectors.dice import Dice

_LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue, ITU-R BT.601."""
_MIDDLE = 128 / 255
"""The grey that JPEG codes with nothing at all."""


def per_frame(values: Tensor) -> Tensor:
    """(T,) as (T, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def luma(x: Tensor) -> Tensor:
    """Brightness, (T, 1, H, W)."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * torch.tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def sensor_noise(frames: Tensor, sigma: float, dice: Dice) -> Tensor:
    """Add shot and read noise, of standard deviation `sigma` at mid-grey, each pixel by itself."""
    return frames + dice.normal(*frames.shape) * sigma * _shot(frames)


def developed_noise(frames: Tensor, sigma: float, dice: Dice) -> Tensor:
    """Add noise as demosaicking and denoising leave it: in blotches, more in colour than in luma.

    Standard deviation `sigma` for luma at mid-grey, and as much again in colour.
    """
    grain = dice.normal(len(frames), 1 + frames.shape[1], *frames.shape[2:])
    fine, coarse = dice.between(0.4, 0.9), dice.between(0.8, 1.6)
    grey, colour = _blotches(grain[:, :1], fine), _blotches(grain[:, 1:], coarse)
    if frames.shape[1] > 1:
        grey = grey + colour - luma(colour)
    return frames + grey * sigma * _shot(frames)


def _shot(frames: Tensor) -> Tensor:
    """How noise rises with light: a floor, and as the root of the signal."""
    return (0.3 + 1.4 * frames.clamp(0, 1)).sqrt()


def _blotches(noise: Tensor, sigma: float) -> Tensor:
    """Standard normal noise, smoothed and standard again."""
    smooth = blurred(noise, torch.full((len(noise),), sigma), radius=4)
    return smooth / smooth.std().clamp_min(1e-6)


def contrasted(frames: Tensor, factors: Tensor) -> Tensor:
    """Values stretched about each frame's mean, by (T,) factors."""
    mean = frames.mean((1, 2, 3), keepdim=True)
    return mean + per_frame(factors) * (frames - mean)


def saturated(frames: Tensor, factors: Tensor) -> Tensor:
    """Colours stretched about grey, by (T,) factors; 0 leaves grey."""
    grey = luma(frames)
    return grey + per_frame(factors) * (frames - grey)


def sharpened(frames: Tensor, amounts: Tensor, sigma: float = 0.7) -> Tensor:
    """Unsharp masks of (T,) amounts."""
    soft = blurred(frames, torch.full((len(frames),), sigma), radius=3)
    return frames + per_frame(amounts) * (frames - soft)


def tinted(frames: Tensor, gains: Tensor) -> Tensor:
    """Each channel of each frame times its gain, (T, 3); grey frames take the second, green's."""
    used = gains if frames.shape[1] == 3 else gains[:, 1:2].expand(-1, frames.shape[1])
    return frames * used[:, :, None, None]


def scaled(frames: Tensor, height: int, width: int, mode: str) -> Tensor:
    """Resized by `area`, or by `bilinear` or `bicubic` with a filter against aliasing."""
    if mode == "area":
        return F.interpolate(frames, size=(height, width), mode="area")
    size = (height, width)
    return F.interpolate(frames, size=size, mode=mode, align_corners=False, antialias=True)


def coded_as_video(frames: Tensor, every: int, key_quality: int, quality: int) -> Tensor:
    """As a video codec leaves them: each frame but the key frames coded as a change to the last.

    Where little changes nothing is coded, and the pixels of the last frame are repeated exactly.

    Args:
        frames: (T, C, H, W) in [0, 1].
        every: a key frame every so many.
        key_quality: of key frames, as JPEG quality.
        quality: of changes. Their steps are twice as wide as JPEG's at the same number.
    """
    seen: list[Tensor] = []
    for index, frame in enumerate(frames.clamp(0, 1).split(1)):
        if index % every == 0:
            seen.append(compressed(frame, torch.tensor([key_quality]), subsample=True))
            continue
        change = (frame - seen[-1]) / 2 + _MIDDLE
        coded = compressed(change.clamp(0, 1), torch.tensor([quality]), subsample=True)
        seen.append((seen[-1] + 2 * (coded - _MIDDLE)).clamp(0, 1))
    return torch.cat(seen)
