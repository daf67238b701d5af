"""A few keyed hashes of an image's content, which near-copies of the image share."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.base import DetectorError
from detectors.salted import SHORTEST_KEY, drawn, in_parts, levels, mixed

_MANY = 16_384
"""Most windows of an image. All of them up to 73 x 73 pixels in colour; larger images get longer
windows, further apart."""
_SHORT, _LONG = 20, 30
"""Window lengths of small and of large images in values (Blacklight: 20 and 50). At 224 pixels
noise of 4/255 leaves 1.9 of 16 keys with windows of 30, and 0.5 with 50."""
_BUSY = 12
"""Mean step between neighbouring pixels, in 8-bit levels, from which a window counts. Flat areas
are alike in images that have nothing else in common: with all windows counted 27 of 10,000 pairs
of CIFAR-10 test images share a key, with these 0.5, and noisy copies share as many as before."""
_APART = 32
"""Neighbouring pixels are a 32nd of the width apart: steps are about as large at every size."""
_PART = 2**17
"""Values of a batch that the CPU takes at once: 32 images of 224 pixels together cost 2.3 ms each,
and less than 1 ms one at a time."""
_UNUSED = torch.iinfo(torch.int64).min


class _Tables(NamedTuple):
    """What the key makes of an input size; each on the device."""

    offsets: Tensor  # (blocks, block) uint8
    factors: Tensor  # (blocks, block) int64, odd
    positions: Tensor  # (windows,) int64


class ContentFingerprint:
    """The `keys` largest keyed hashes of windows of quantised pixels.

    A secret offset per value is added modulo 256, so nobody knows where the cells of the
    quantisation end. Each window of consecutive values (colours innermost) is hashed by
    multiply-add with secret odd factors; the largest hashes are a random sample of the windows,
    the same one for near-copies: who changes half of the windows keeps nearly half of the keys.
    Hashes depend on their windows' place too, so no two of an image are equal.

    Sees copies that differ little or in few places. Of 16 keys CIFAR-10 images keep 13.3 under
    Gaussian noise of 0.5/255, 10.8 of 1/255, 7.6 of 2/255 and 3.7 of 4/255; 14.6 under one of
    Square's squares of a fifth of the side, 9.6 of half. Does not see copies whose every value
    moved far (sign noise of 8/255 leaves 0.4 keys), or that were shifted or dimmed:
    `PerceptualFingerprint` does. Flat images have no windows that count, and no keys.

    Source: Blacklight (Li et al., USENIX Security 2022, arXiv 2006.14042, section 4), with a
    universal hash in place of SHA-256, cells of equal size on a circle, and flat windows left out.
    Known adaptive break: steps chosen by whether the last one was noticed (OARS, Feng et al., CCS
    2023, arXiv 2303.06280); shifts between queries (Chen et al., SPAI 2020, arXiv 1907.05587).
    """

    def __init__(
        self,
        key: bytes,
        *,
        keys: int = 16,
        cells: int = 5,
        windows: tuple[int, int] | None = None,
    ) -> None:
        """Take the secret and what to make of it.

        Args:
            key: secret, of at least 16 bytes; one for each model and epoch.
            keys: how many are kept, 1 to 64.
            cells: of the quantisation, 2 to 127; 5 are Blacklight's step of 50 levels.
            windows: values in a window, and from the start of one to the next. By default they
                follow from the input size (`spacing`).

        Raises:
            DetectorError: a short key, a number out of range, or a step that neither divides the
                window nor exceeds it.
        """
        if len(key) < SHORTEST_KEY:
            raise DetectorError(f"a key of {len(key)} bytes is too short: {SHORTEST_KEY} or more")
        if not (1 <= keys <= 64 and 2 <= cells <= 127):
            raise DetectorError(f"keys are 1 to 64, not {keys}; cells 2 to 127, not {cells}")
        if windows and (min(windows) < 1 or (windows[1] < windows[0] and windows[0] % windows[1])):
            raise DetectorError(f"windows of {windows[0]} cannot start every {windows[1]} values")
        self._windows = windows
        self._key, self._keys, self._cells = key, keys, cells
        self._tables = lru_cache(maxsize=4)(self._make)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the keys of each image, (B, keys) int64, largest first; 0 where there is none.

        Equal for equal keys and 8-bit content, on every device and in every batch.

        Args:
            x: (B, C, H, W) float32 in [0, 1]. Other values count as the nearest of these, and what
                is no number as 0.
        """
        with torch.no_grad():
            return in_parts(self._keys_of, x, _PART)

    def _keys_of(self, x: Tensor) -> Tensor:
        values = levels(x).permute(0, 2, 3, 1).flatten(1)  # (B, H*W*C), colours innermost
        window, step = self._geometry(values.shape[1])
        lag = x.shape[1] * max(1, x.shape[3] // _APART)
        busy = _summed(_blocks(_steps(values, lag), window, step), window // step)
        hashes = self._hashes(_blocks(values, window, step), window // step)
        hashes = torch.where(busy >= _BUSY * window, hashes, _UNUSED)
        top = hashes.topk(min(self._keys, hashes.shape[1]), dim=1).values
        return F.pad(top.masked_fill(top == _UNUSED, 0), (0, self._keys - top.shape[1]))

    def _geometry(self, size: int) -> tuple[int, int]:
        """Window and step for images of so many values; what is smaller than a window is one."""
        window, step = self._windows or spacing(size)
        return (window, min(step, size)) if size > window else (size, size)

    def _hashes(self, values: Tensor, reach: int) -> Tensor:
        """Hash each window, (B, windows) int64, of blocks of levels (B, blocks, block) uint8."""
        tables = self._tables(*values.shape[1:], values.device)
        # Bytes wrap around at 256. Cells in 16 bits, for a quarter of the traffic of 64.
        cells = ((values + tables.offsets).to(torch.int16) * self._cells) >> 8
        sums = _summed(cells * tables.factors, reach)
        return mixed(sums + tables.positions[: sums.shape[1]])

    def _make(self, blocks: int, block: int, device: torch.device) -> _Tables:
        shape = (blocks, block)
        # A size's numbers are its own: those of a smaller one are not the start of a larger one's.
        name = f"content/{blocks}x{block}"
        offsets = drawn(self._key, f"{name}/offsets", blocks * block) & 255
        factors = drawn(self._key, f"{name}/factors", blocks * block) | 1
        positions = drawn(self._key, f"{name}/positions", blocks)
        return _Tables(
            offsets.to(torch.uint8).view(shape).to(device),
            factors.view(shape).to(device),
            positions.to(device),
        )


def spacing(size: int) -> tuple[int, int]:
    """Window and step for images of so many values, so that there are at most 16,384 windows.

    The step divides the window, or is longer: then values between the windows go unseen.
    """
    window = _SHORT if size <= _MANY else _LONG
    divisors = (step for step in range(1, window + 1) if window % step == 0)
    return window, next((step for step in divisors if size <= _MANY * step), -(-size // _MANY))


def _steps(values: Tensor, lag: int) -> Tensor:
    """Differences of each value to the one `lag` before it, (B, N) uint8; 0 where there is none."""
    lag = min(lag, values.shape[1])
    earlier, later = values[:, : values.shape[1] - lag], values[:, lag:]
    return F.pad(torch.maximum(earlier, later) - torch.minimum(earlier, later), (lag, 0))


def _blocks(values: Tensor, window: int, step: int) -> Tensor:
    """The values in windows, (B, blocks, min(window, step)): the first of every `step`."""
    blocks = values.shape[1] // step
    return values[:, : blocks * step].reshape(-1, blocks, step)[:, :, :window]


def _summed(values: Tensor, reach: int) -> Tensor:
    """Sums over every `reach` consecutive blocks (at least one), int64; they wrap around."""
    sums = values.sum(2, dtype=torch.int64)
    if reach <= 1:
        return sums
    sums = F.pad(sums.cumsum(1), (1, 0))
    return sums[:, reach:] - sums[:, :-reach]
