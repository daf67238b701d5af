"""A sketch of an image: a few numbers from which distances between images can be told, by band."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

BANDS = ("low", "middle", "high")
"""Layout on a grid of 8x8; what is between; what a 3x3 mean takes away."""
_ROWS, _COLUMNS = 3, 4
WIDTH = _ROWS * _COLUMNS
"""Numbers for each band: one for each block of the image, in rows."""
SIZE = WIDTH * len(BANDS)
STEP = 1 / 64
"""What one unit of a sketch stands for, in levels of 1/255 root mean square: two images that differ
by a hundredth of a level everywhere still have different sketches."""

_GRID = 8
_MOST = 32767


class Sketcher:
    """Secret random projections of three frequency bands of an image.

    Every number is a sum with secret signs over a block of a band's values (a count sketch), so
    that the squared distance of two sketches is an unbiased estimate of the images' mean squared
    distance in that band, good to about a third where all blocks differ. It is linear in the
    image: where one image is the midpoint of two others, so is its sketch, up to rounding. An
    image cannot be made out in 36 numbers whose signs are unknown.

    Source: Charikar, Chen, Farach-Colton, ICALP 2002 (count sketch); Alon, Matias, Szegedy, STOC
    1996, for the estimate.

    Args:
        key: the secret the signs follow from. Sketches with different keys cannot be compared.
    """

    def __init__(self, key: bytes) -> None:
        digest = hashlib.sha256(b"sketch" + key).digest()
        self._seed = int.from_bytes(digest[:8], "little") >> 1
        self._signs: dict[tuple[torch.Size, torch.device], tuple[Tensor, ...]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """The sketches of images, (B, SIZE) int16 in units of `STEP`, on the images' device.

        Args:
            x: (B, C, H, W) float32 in [0, 1]. What is not finite counts as 0.
        """
        x = torch.nan_to_num(x, 0.0, 0.0, 0.0) * 255
        height, width = x.shape[2:]
        smooth = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), "replicate"), 3, 1)
        low = F.adaptive_avg_pool2d(x, (min(_GRID, height), min(_GRID, width)))
        middle = smooth - F.interpolate(low, (height, width), mode="nearest")
        bands = (low, middle, x - smooth)
        numbers = [
            _projected(band * signs)
            for band, signs in zip(bands, self._signs_of(bands), strict=True)
        ]
        units = (torch.cat(numbers, dim=1) / STEP).round()
        return units.clamp(-_MOST, _MOST).to(torch.int16)

    def _signs_of(self, bands: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        place = (bands[-1].shape[1:], bands[-1].device)
        if place not in self._signs:
            if len(self._signs) >= 8:  # clients choose sizes
                self._signs.clear()
            generator = torch.Generator().manual_seed(self._seed)
            self._signs[place] = tuple(
                (torch.randint(0, 2, band.shape[1:], generator=generator) * 2.0 - 1).to(band.device)
                for band in bands
            )
        return self._signs[place]


def _projected(signed: Tensor) -> Tensor:
    """(B, WIDTH) sums over blocks of (B, C, H, W), such that their squares sum to a mean."""
    flat = signed.sum(1) / signed.shape[1:].numel() ** 0.5
    down, across = (
        _blocks(n, size) for n, size in ((_ROWS, flat.shape[1]), (_COLUMNS, flat.shape[2]))
    )
    numbers: Tensor = (down.to(flat) @ flat @ across.to(flat).T).flatten(1)
    return numbers


@lru_cache(maxsize=64)
def _blocks(count: int, size: int) -> Tensor:
    """Which of `count` equal parts each place belongs to, (count, size) of 0 and 1."""
    part = torch.arange(size) * count // size
    return (part == torch.arange(count)[:, None]).float()
