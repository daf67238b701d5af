"""Energies of an image's cosine bands, block by block: what tier-0 detectors measure texture by."""

from __future__ import annotations

import math
from enum import IntEnum
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.maps import Maps

SIDE = 8
"""Block side in pixels. A band is a diagonal u + v of the block's transform, 0 to 14."""
_LARGE = 64
"""Image side from which blocks lie further apart: there are enough of them."""
_FLAT = 30.0**2
"""Mean energy of bands 1 to 4 at which a block's weight has halved. Strong attacks alone put 8
levels there (PGD 8/255), so the weights hardly follow the perturbation."""


class Band(IntEnum):
    """Groups of neighbouring bands whose mean energies detectors compare, see `RANGES`."""

    CONTENT = 0
    LOW = 1
    LOWER_MIDDLE = 2
    UPPER_MIDDLE = 3
    HIGH = 4
    HIGHEST = 5
    ALL = 6
    """All but the mean colour."""


RANGES = {
    Band.CONTENT: range(1, 5),
    Band.LOW: range(2, 4),
    Band.LOWER_MIDDLE: range(5, 9),
    Band.UPPER_MIDDLE: range(8, 11),
    Band.HIGH: range(11, 15),
    Band.HIGHEST: range(12, 15),
    Band.ALL: range(1, 15),
}
"""The bands of each group. Only the last three bands are free of most texture."""


def opponent(maps: Maps) -> Tensor:
    """Return luma and colour differences, (C, B, H, W) contiguous, orthonormal in the channels.

    Plane 0 is the sum of the channels over sqrt(C), the others are differences. White noise keeps
    its variance in each, so planes can be compared; one channel stays as it is.
    """
    batch, channels, height, width = maps.x.shape
    flat = maps.x.transpose(0, 1).reshape(channels, -1)
    planes: Tensor = torch.mm(_contrasts(channels, flat.device), flat)
    return planes.view(channels, batch, height, width)


def at_least(x: Tensor, side: int) -> Tensor:
    """Extend images smaller than `side` pixels by their edge values."""
    height, width = x.shape[-2:]
    if min(height, width) >= side:
        return x
    return extended(x, (0, max(0, side - width), 0, max(0, side - height)))


def extended(planes: Tensor, margins: tuple[int, int, int, int]) -> Tensor:
    """Planes (C, B, H, W) with the edge values repeated: left, right, above and below."""
    flat = planes.flatten(0, 1)[:, None]  # padding takes an empty batch only if it comes first
    padded = F.pad(flat, margins, mode="replicate")
    return padded.view(*planes.shape[:2], *padded.shape[2:])


def cosines(side: int) -> Tensor:
    """The orthonormal cosine transform, (side, side) float64: frequencies, pixels."""
    k = torch.arange(side, dtype=torch.float64)
    dct = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / (2 * side)) * math.sqrt(2 / side)
    dct[0] /= math.sqrt(2)
    return dct


def blocks(planes: Tensor, transform: Tensor, stride: int) -> Tensor:
    """Transform overlapping square blocks of planes, along the rows and then along the columns.

    Two products with a small matrix per position of a block: windows overlap in memory, so none is
    copied. One convolution with all kernels takes twice to four times as long.

    Args:
        planes: (C, B, H, W) contiguous, sides of at least a block.
        transform: (side, side): frequencies, pixels.
        stride: from one block to the next, in pixels; what is left at the far edges is left out.

    Returns:
        (rows of blocks, side * side, C, B, columns of blocks), coefficients row by row.
    """
    channels, batch, height, _ = planes.shape
    side = len(transform)
    across = planes.flatten(0, 2).unfold(1, side, stride).permute(1, 2, 0)  # (X, side, C*B*H)
    columns = len(across)
    rows = torch.bmm(transform.expand(columns, side, side), across)  # (X, v, C*B*H)
    rows = rows.view(columns, side, channels * batch, height).permute(1, 2, 0, 3)
    down = rows.flatten(0, 2).unfold(1, side, stride).permute(1, 2, 0)  # (Y, side, v*C*B*X)
    done = torch.bmm(transform.expand(len(down), side, side), down)  # (Y, u, v*C*B*X)
    coefficients: Tensor = done.view(len(down), side * side, channels, batch, columns)
    return coefficients


def band_energies(maps: Maps) -> tuple[Tensor, Tensor]:
    """Return the mean energy of a coefficient by group of bands and block, in 8-bit levels squared.

    Blocks are 3 pixels apart (7 in images of 64 pixels and more), never a divisor of 8: a grid
    that meets the one of an earlier JPEG compression measures that compression. On CIFAR-10, whose
    images were compressed once, an unweighted ratio of bands over blocks 4 apart detected 0.87 of
    PGD 8/255 and alarmed on 0.57 of rotated images; blocks 3 apart 0.62 and 0.19.

    Returns:
        Luma and chroma, (len(Band), Y, B, X) each, for Y rows of X blocks; chroma is the mean over
        the colour differences, 0 with one channel.
    """
    planes = at_least(maps.of(opponent), SIDE)
    height, width = planes.shape[-2:]
    stride = 3 if min(height, width) < _LARGE else 7
    rest = (0, -(width - SIDE) % stride, 0, -(height - SIDE) % stride)
    if any(rest):
        planes = extended(planes, rest)
    transform, groups = _matrices(planes.device)
    coefficients = blocks(planes, transform, stride)
    squares = squared(coefficients).flatten(2)  # (Y, 64, C*B*X)
    energy = torch.bmm(groups.expand(len(squares), *groups.shape), squares)
    energy = energy.view(len(energy), len(Band), *coefficients.shape[2:]).transpose(0, 1)
    luma = energy[:, :, 0]
    chroma = energy[:, :, 1:].mean(2) if len(planes) > 1 else torch.zeros_like(luma)
    return luma, chroma


def squared(values: Tensor) -> Tensor:
    """The squares, in place of the values while no gradients are wanted: half the memory moved."""
    return values.square_() if torch.is_inference_mode_enabled() else values.square()


def flatness(content: Tensor) -> Tensor:
    """Weight of each block in (0, 1]: 1 where flat, 1/2 at a content of 30 levels.

    Args:
        content: energies of `Band.CONTENT`, of any shape.
    """
    return _FLAT / (_FLAT + content)


def over_blocks(values: Tensor) -> Tensor:
    """Sum over all blocks of an image, (B,) for (Y, B, X)."""
    return values.sum((0, 2))


@cache
def _contrasts(channels: int, device: torch.device) -> Tensor:
    """Sum of the channels, and Helmert's contrasts of the first k to the next, (C, C)."""
    with torch.inference_mode(mode=False):
        rows = torch.ones(channels, channels, dtype=torch.float64)
        for k in range(1, channels):
            rows[k, k], rows[k, k + 1 :] = -k, 0
        contrasts: Tensor = rows / rows.norm(dim=1, keepdim=True)
        return contrasts.float().to(device)


@cache
def _matrices(device: torch.device) -> tuple[Tensor, Tensor]:
    """The transform of pixels in [0, 1] to 8-bit levels, (8, 8), and the groups' means, (7, 64)."""
    # Also for passes with gradients, which take no tensor made in inference mode.
    with torch.inference_mode(mode=False):
        k = torch.arange(SIDE)
        band = (k[:, None] + k).flatten()
        members = (band == torch.arange(2 * SIDE - 1)[:, None]).double()
        means = members / members.sum(1, keepdim=True)  # (15, 64)
        groups = torch.stack([means[list(RANGES[group])].mean(0) for group in Band])
        # Twice this matrix is a factor of 255 on the coefficients.
        transform = cosines(SIDE) * math.sqrt(255)
        return transform.float().to(device), groups.float().to(device)
