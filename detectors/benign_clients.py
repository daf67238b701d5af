"""Benign sequences that programs make of one image: retries, monitors, test-time augmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from detectors.benign import compressed, rounded
from detectors.benign_edits import crops, repeated, sliders
from detectors.dice import Dice
from detectors.glyphs import ink, stamped
from detectors.photometry import contrasted, per_frame, saturated
from detectors.scenes import Scene, laid_over

_LEVEL = 1 / 255


def ten_crop(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Four corners and the middle, each as it is and mirrored; then at the next size."""
    places = torch.tensor([(-1, -1), (1, -1), (-1, 1), (1, 1), (0, 0)], dtype=torch.float32)
    index = torch.arange(length)
    span = dice.between(0.8, 0.92) - 0.06 * (index // 10 % 4)
    room = (1 - span)[:, None] * torch.tensor([x.shape[2], x.shape[1]]) / 2
    frames = Scene(x).look(room * places[index % 5], span=span)
    return torch.where(per_frame(index // 5 % 2) == 1, frames.flip(3), frames)


def noisy_copies(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Copies with random noise whose answers the client averages; floats, not rounded."""
    sigma = dice.between(0.5, 8) * _LEVEL
    noise = dice.normal(length, *x.shape)
    if dice.happens(0.3):
        noise = (noise / 2**0.5).erf() * 3**0.5  # uniform, of the same variance
    return x + sigma * noise


def encoders(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Sent again through another client: PNG, or JPEG by other libraries and settings."""
    chosen = dice.wholes(length, 0, 6)
    quality = torch.tensor([75, 80, 85, 90, 92, 95, 0])[chosen]
    half = dice.several(length, 0, 1) < 0.5
    frames = repeated(x, length).clone()
    for subsample in (False, True):
        rows = (quality > 0) & (half == subsample)
        frames[rows] = compressed(frames[rows], quality[rows], subsample=subsample)
    return frames


def canary(x: Tensor, length: int, dice: Dice) -> Tensor:
    """A monitor that asks for one image again and again."""
    return repeated(x, length)


def counting_canary(x: Tensor, length: int, dice: Dice) -> Tensor:
    """A monitor that makes each image new, lest a cache answer: a counter, or a few pixels."""
    height, width = x.shape[1:]
    if dice.happens(0.5):
        start = dice.whole(0, 9000)
        size = max(5, round(height * 0.18))
        drawn = [ink(f"{start + t:04d}", size) for t in range(length)]
        masks = [stamped(text, 0, width - text.shape[1], height, width) for text in drawn]
        return laid_over(repeated(x, length), torch.ones(()), torch.stack(masks)[:, None])
    frames = repeated(x, length).clone()
    count = dice.whole(1, 4)
    rows, columns = dice.wholes(2 * length * count, 0, height * width - 1).view(2, length, count)
    at = torch.arange(length)[:, None]
    values = dice.several(length * count, 0, 1).view(length, count, 1)
    frames[at, :, rows % height, columns % width] = values.expand(-1, -1, x.shape[0])
    return frames


def retries(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Versions of one image, each sent once to three times exactly (only the metadata differ)."""
    versions = dice.one_of((crops, sliders))(x, length, dice)
    times = dice.wholes(length, 1, 3)
    return versions.repeat_interleave(times, 0)[:length]


def augmentation(x: Tensor, length: int, dice: Dice) -> Tensor:
    """One image through a training pipeline: random crop, mirror, colour jitter."""
    least, jitter = dice.between(0.3, 0.8), dice.between(0, 0.4)
    span = dice.several(length, least, 1).sqrt()
    room = (1 - span)[:, None] * torch.tensor([x.shape[2], x.shape[1]]) / 2
    at = room * torch.stack((dice.several(length, -1, 1), dice.several(length, -1, 1)), dim=1)
    frames = Scene(x).look(at, span=span)
    frames = torch.where(per_frame(dice.several(length, 0, 1)) < 0.5, frames.flip(3), frames)
    frames = frames * per_frame(dice.several(length, 1 - jitter, 1 + jitter))
    frames = contrasted(frames, dice.several(length, 1 - jitter, 1 + jitter))
    return saturated(frames, dice.several(length, 1 - jitter, 1 + jitter))


def padded_crops(x: Tensor, length: int, dice: Dice) -> Tensor:
    """Shifted by whole pixels over a black border and mirrored, as CIFAR networks are trained."""
    height, width = x.shape[1:]
    most = max(1, min(height, width) // 8)
    frames = torch.zeros(length, *x.shape)
    for t, (down, right) in enumerate(dice.wholes(2 * length, -most, most).view(-1, 2).tolist()):
        moved = torch.roll(x, (down, right), (1, 2))
        rows = torch.arange(height).sub(down).clamp(0, height - 1) == torch.arange(height) - down
        columns = torch.arange(width).sub(right).clamp(0, width - 1) == torch.arange(width) - right
        frames[t] = moved * rows[:, None] * columns
    mirrored = per_frame(dice.several(length, 0, 1)) < 0.5
    return rounded(torch.where(mirrored, frames.flip(3), frames))
