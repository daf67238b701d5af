"""A few keyed codes of what an image looks like, which survive shifts, blur, dimming and noise."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from detectors.base import DetectorError
from detectors.salted import SHORTEST_KEY, drawn, in_parts, levels, mixed

_SIDE = 32
"""Every image is first made this large."""
_WINDOW = 24
"""Side of the part that is described. It has room to move by a quarter, so what it sees is still
there after a shift of a tenth; larger windows tell strangers apart better."""
_WAVES = 6
"""Cosines across a window in each direction. With 5 several times as many strangers share a key."""
_BITS = 56
"""Projections whose signs make a code. With 48 three times as many strangers share a key."""
_OPPONENT = ((2, 2, 2), (2, -2, 0), (1, 1, -2))
"""Luma and two colour differences in whole numbers. Colours count two thirds of what luma does:
there is less of them under the same noise."""
_FIRM = 64
"""Projections beyond this, in their own units, are told apart from nothing: less is no code."""
_PART = 2**15
"""Values of a batch that the CPU takes at once, so that projections stay in its caches."""
_ROW = 1024
"""What the weights of a resized pixel sum up to."""


class _Tables(NamedTuple):
    """Whole numbers, on the device; float32 where nothing else is said."""

    across: Tensor  # (32, W) resizing
    down: Tensor  # (32, H)
    colours: Tensor  # (planes, C)
    waves: Tensor  # (places * waves, 32) cosines of the window at each place along a side
    places: Tensor  # (places,) int64: every other pair of places along the sides
    weights: Tensor  # (waves * waves,) by frequency, not whole; 0 for the mean
    directions: Tensor  # (planes * waves * waves, keys * bits) secret
    bits: Tensor  # (bits,) int64, secret
    bands: Tensor  # (keys,) int64, secret


class PerceptualFingerprint:
    """Codes of the firmest views of an image, one for each of `keys` secret sets of directions.

    A window slides over a small version of the image. At each place its cosine coefficients,
    without the mean, are projected on 56 secret directions, and the signs are a code. For each set
    of directions the image keeps the code of one place: where the projection nearest to zero is
    farthest from it. That place moves with the image when it is shifted, no sign changes when
    everything is scaled, and noise must be as strong as that weakest projection to change one.

    All sums are of whole numbers that float32 holds exactly, so that the order in which a device
    adds them does not matter: keys are the same everywhere, to the last bit.

    Sees copies under noise, blur, another brightness or contrast, and shifts of up to a tenth. Of
    400 CIFAR-10 images these shares keep one key or more: Gaussian or sign noise of 8/255 0.90 and
    0.93, stripes of 8/255 0.86, a 3x3 blur 0.93, brightness, gain and contrast 0.99, half a pixel
    0.99, shifts up to a tenth at random 0.97 and both ways by a tenth 0.87, a shift with brightness
    and sign noise 0.71, a shift with blur, gain and Gaussian noise 0.60. An attacker who sends
    variant upon variant thus meets one of the last few. Of pairs of strangers 8 in a million share
    a key. Does not see zooms by a tenth (0.19), crops, turns, mirror images. On images as small as
    digits of 8x8 a 3x3 blur is no small change (0.02), and 9 in 10,000 pairs share a key.

    Source: signs of random projections after Charikar, STOC 2002; the places found by their own
    firmness instead of by a detector of corners. What it is for: query blinding (Chen et al., SPAI
    2020, arXiv 1907.05587). Known adaptive break: changes beyond what it was made to survive,
    such as rotations, mirror images and crops, if the model under attack bears them.
    """

    def __init__(self, key: bytes, *, keys: int = 8) -> None:
        """Take the secret, of at least 16 bytes (one for each model and epoch), and a number.

        Raises:
            DetectorError: a short key, or keys not 1 to 64.
        """
        if len(key) < SHORTEST_KEY:
            raise DetectorError(f"a key of {len(key)} bytes is too short: {SHORTEST_KEY} or more")
        if not 1 <= keys <= 64:
            raise DetectorError(f"keys are 1 to 64, not {keys}")
        self._key, self._keys = key, keys
        self._tables = lru_cache(maxsize=4)(self._make)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the keys of each image, (B, keys) int64; 0 where there is none.

        Key k of one image can only equal key k of another. Equal for equal keys and 8-bit content,
        on every device and in every batch.

        Args:
            x: (B, C, H, W) float32 in [0, 1]. Other values count as the nearest of these, and what
                is no number as 0.
        """
        with torch.no_grad():
            return in_parts(self._keys_of, x, _PART)

    def _keys_of(self, x: Tensor) -> Tensor:
        tables = self._tables(*x.shape[1:], x.device)
        described = _described(levels(x).float(), tables)  # (B, places, values)
        # In place: a copy of so many projections costs as much as what is done with them.
        sizes = (described @ tables.directions).abs_().unflatten(2, (self._keys, _BITS))
        firmness = sizes.amin(3).long()  # (B, places, keys), below 2**24
        # Firmness and place in one number, for equal firmness must not leave the choice open.
        places = firmness.shape[1]
        best = (firmness * places + torch.arange(places, device=x.device)[:, None]).amax(1)
        at = (best % places)[:, :, None].expand(-1, -1, described.shape[2])  # (B, keys, values)
        chosen = described.gather(1, at).transpose(0, 1)
        directions = tables.directions.unflatten(1, (self._keys, _BITS)).transpose(0, 1)
        codes = (chosen @ directions > 0).transpose(0, 1)  # (B, keys, bits)
        keys = mixed((codes * tables.bits).sum(2) + tables.bands)
        return keys.masked_fill(best < _FIRM * places, 0)

    def _make(self, channels: int, height: int, width: int, device: torch.device) -> _Tables:
        colours = torch.tensor(_OPPONENT if channels == 3 else [[1] * channels])
        place = torch.arange(2 * (_SIDE - _WINDOW) + 1)
        square = torch.arange(_WAVES).square()
        frequency = (square[:, None] + square).flatten().float()
        count = len(colours) * _WAVES**2 * self._keys * _BITS
        draws = drawn(self._key, f"perceptual/{len(colours)}", -(-count // 8)).view(torch.int8)
        directions = draws[:count].view(-1, self._keys * _BITS) >> 1  # -64 to 63
        tables = (
            _resizing(width),
            _resizing(height),
            colours.float(),
            _waves(),
            ((place[:, None] + place) % 2 == 0).flatten().nonzero()[:, 0],
            frequency.sqrt().sqrt(),
            directions.float(),
            drawn(self._key, "perceptual/bits", _BITS),
            drawn(self._key, "perceptual/bands", self._keys),
        )
        return _Tables._make(table.to(device) for table in tables)


def _described(x: Tensor, tables: _Tables) -> Tensor:
    """Weighted cosine coefficients at each place, (B, places, values), whole and below 2,048.

    Every product sums up to less than 2**24 and is rounded to 11 bits before the next one.
    """
    x = (x @ tables.across.T / (_ROW // 8)).round_()  # (B, C, H, 32) in eighths of a level
    x = (tables.down @ x / _ROW).round_()  # (B, C, 32, 32)
    scale = 8 if x.shape[1] == 3 else x.shape[1] * 4 / 3  # white is 1,530 in either case
    planes = (tables.colours @ x.flatten(2) / scale).round_().unflatten(2, (_SIDE, _SIDE))
    rows = (planes @ tables.waves.T / 1024).round_()  # (B, planes, 32, places * waves)
    both = (tables.waves @ rows).unflatten(3, (-1, _WAVES)).unflatten(2, (-1, _WAVES))
    both = both.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    both = both[:, tables.places].flatten(3)  # (B, places, planes, values)
    values: Tensor = (both * tables.weights / 1024).round_().clamp_(-2047, 2047)
    return values.flatten(2)


def _resizing(size: int) -> Tensor:
    """Whole weights that make `size` pixels 32, (32, size); each row sums up to about `_ROW`.

    Triangles: between the nearest two pixels for a small image, over all for a large one.
    """
    scale = size / _SIDE
    centres = (torch.arange(_SIDE, dtype=torch.float64) + 0.5) * scale - 0.5
    distance = (torch.arange(size, dtype=torch.float64) - centres.clamp(0, size - 1)[:, None]).abs()
    weights = (1 - distance / max(1.0, scale)).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True) * _ROW).round().float()


def _waves() -> Tensor:
    """Cosines under a squared sine at each place along one side, (places * waves, 32), whole.

    Places are half a pixel apart. All but the first cosine sum up to exactly 0, so that brightness
    does not count.
    """
    offsets = torch.arange(0, _SIDE - _WINDOW + 0.25, 0.5, dtype=torch.float64)[:, None]
    t = (torch.arange(_SIDE, dtype=torch.float64) + 0.5 - offsets) / _WINDOW  # (places, 32)
    window = (math.pi * t).sin().square() * ((t > 0) & (t < 1))
    waves = window[:, None] * (math.pi * torch.arange(_WAVES)[:, None] * t[:, None]).cos()
    share = waves.sum(2, keepdim=True) / window.sum(1)[:, None, None]
    share[:, 0] = 0
    waves -= share * window[:, None]
    norms = waves.norm(dim=2, keepdim=True)
    whole = (waves / norms * norms[:, :1] * 112).round()
    rest = whole.sum(2)
    rest[:, 0] = 0
    whole.scatter_add_(2, whole.abs().argmax(2, keepdim=True), -rest[:, :, None])
    cosines: Tensor = whole.flatten(0, 1)
    return cosines.float()
