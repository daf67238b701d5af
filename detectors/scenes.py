"""An image as a scene to film: what a camera sees that moves over it, and what is laid over it."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.dice import Dice

_SOFTNESS = 0.3
"""What is left of the highest frequency is exp(-0.3)."""


class Scene:
    """A still image seen through a camera, mirrored beyond its edges.

    All frames are about equally sharp, wherever between two pixels they lie: they are interpolated
    from a copy at twice the resolution, which has every frequency of the image. Interpolated from
    the image itself, a frame that falls on whole pixels is sharp and its neighbour half a pixel
    further is not (bicubic, CIFAR-10: a fifth less energy of second differences).

    Args:
        x: (C, H, W) in [0, 1].
    """

    def __init__(self, x: Tensor) -> None:
        self.height, self.width = x.shape[1:]
        self._canvas = (_finer(self.height) @ x @ _finer(self.width).T)[None]
        self.pixels = pixels(self.height, self.width)

    @property
    def side(self) -> int:
        """The shorter side, in pixels."""
        return min(self.height, self.width)

    def look(
        self,
        at: Tensor,
        *,
        span: Tensor | float = 1.0,
        angle: Tensor | float = 0.0,
        tilt: Tensor | None = None,
        bend: Tensor | None = None,
    ) -> Tensor:
        """The frames of a camera, (T, C, H, W), about in [0, 1]: interpolation overshoots a little.

        Args:
            at: (T, 2) what the camera points at, x and y in pixels from the middle.
            span: (T,) or for all: part of the scene seen; below 1 enlarges.
            angle: (T,) or for all: turn of the camera, in radians.
            tilt: (T, 2) change of distance across the frame (perspective), 0 for none.
            bend: (T, H, W, 2) what each pixel sees beside where the camera points, in pixels.
        """
        count = len(at)
        spans = torch.as_tensor(span).expand(count)
        angles = torch.as_tensor(angle).expand(count)
        cos, sin = angles.cos() * spans, angles.sin() * spans
        turn = torch.stack((cos, sin, -sin, cos), dim=1).view(-1, 2, 2)
        source = self.pixels.view(1, -1, 2) @ turn  # (T, H*W, 2)
        half = torch.tensor([self.width, self.height]) / 2
        if tilt is not None:
            source = source / (1 + (self.pixels.view(1, -1, 2) / half) @ tilt[:, :, None])
        source = source.view(count, self.height, self.width, 2) + at[:, None, None]
        if bend is not None:
            source = source + bend
        canvas = self._canvas.expand(count, -1, -1, -1)
        return F.grid_sample(
            canvas, source / half, mode="bicubic", padding_mode="reflection", align_corners=False
        )


@functools.lru_cache(maxsize=16)
def _finer(size: int) -> Tensor:
    """Doubles a line of pixels, (2 * size, size): cosine series of the line and its mirror image.

    The highest frequencies are softened a little, against ringing.
    """
    k = torch.arange(size, dtype=torch.float64)
    coarse, fine = (torch.arange(n, dtype=torch.float64).add(0.5) / n for n in (size, 2 * size))
    share = torch.where(k == 0, 1, 2) / size * torch.exp(-_SOFTNESS * (k / size) ** 4)
    series = torch.cos(math.pi * k[:, None] * coarse) * share[:, None]  # (size, size)
    return (torch.cos(math.pi * fine[:, None] * k) @ series).float()


def pixels(height: int, width: int) -> Tensor:
    """Where each pixel is, x and y from the middle, (H, W, 2)."""
    y = torch.arange(height) - (height - 1) / 2
    x = torch.arange(width) - (width - 1) / 2
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=2)


def direction(dice: Dice) -> Tensor:
    """A random unit vector, (1, 2)."""
    angle = dice.between(0, 2 * math.pi)
    return torch.tensor([[math.cos(angle), math.sin(angle)]])


def steady(length: int) -> Tensor:
    """A camera that does not move, (length, 2)."""
    return torch.zeros(length, 2)


def there_and_back(length: int, step: float, reach: float) -> Tensor:
    """Distance from the start at constant speed, turning back at `reach`, (length,)."""
    gone = torch.arange(length) * step % (2 * reach)
    return torch.minimum(gone, 2 * reach - gone)


def wander(length: int, dice: Dice, *, fastest: float = 0.2) -> Tensor:
    """A smooth aimless course about 0 with a mean square of 1, (length,).

    Args:
        length: how many frames.
        dice: source of the course.
        fastest: highest frequency in it, in cycles a frame.
    """
    speed, phase = dice.several(3, 0.2, 1) * fastest, dice.several(3, 0, 2 * math.pi)
    t = torch.arange(length)[:, None]
    weight = dice.several(3, 0.3, 1)
    waves = weight * torch.sin(2 * math.pi * speed * t + phase)  # (T, 3)
    return waves.sum(1) / weight.square().sum().div(2).sqrt()


def shake(length: int, size: float, dice: Dice) -> Tensor:
    """The unsteady hand of a person: sway and tremor, of this size in pixels, (length, 2)."""
    sway = torch.stack((wander(length, dice), wander(length, dice)), dim=1)
    return size * (sway + 0.3 * dice.normal(length, 2))


def disc(at: Tensor, radii: tuple[float, float], place: Tensor, *, soft: float = 1.0) -> Tensor:
    """Ellipses with soft edges, (T, 1, H, W) in [0, 1].

    Args:
        at: (T, 2) their middles, in pixels from the middle of the frame.
        radii: across and down, in pixels.
        place: where each pixel is (`pixels`).
        soft: width of the edge, in pixels.
    """
    radius = torch.tensor(radii)
    away = ((place - at[:, None, None]) / radius).square().sum(3).sqrt()  # (T, H, W)
    return ((1 - away) * radius.mean() / soft + 0.5).clamp(0, 1)[:, None]


def laid_over(frames: Tensor, top: Tensor, mask: Tensor) -> Tensor:
    """`top` where the mask is 1, the frames where it is 0; shapes broadcast to (T, C, H, W)."""
    return frames + mask * (top - frames)
