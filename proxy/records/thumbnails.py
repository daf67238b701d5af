"""Small pictures of notable samples, so many a second, made beside the traffic."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 64
"""Longest side, pixels."""
PER_SECOND = 20
"""Most thumbnails made in a second."""
_MODES = {1: "L", 3: "RGB"}
_IMAGE_AXES = 4
_SPARE = 2  # samples per side of the thumbnail that are taken from a large image, at least


class Pictures:
    """Makes thumbnails, no more than `PER_SECOND`.

    Args:
        now: seconds of a clock that only goes forward.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._left = float(PER_SECOND)
        self._at_s = now()

    def admit(self, rows: Sequence[int]) -> list[int]:
        """Of these samples, those a thumbnail may be made of now."""
        now_s = self._now()
        self._left = min(PER_SECOND, self._left + PER_SECOND * (now_s - self._at_s))
        self._at_s = now_s
        chosen = list(rows[: int(self._left)])
        self._left -= len(chosen)
        return chosen

    async def take(self, x: Tensor, rows: Sequence[int]) -> dict[int, str]:
        """Thumbnails by sample; see `thumbnails`."""
        return await asyncio.to_thread(thumbnails, x, rows)


def thumbnails(x: Tensor, rows: Sequence[int]) -> dict[int, str]:
    """PNG files in base64 by sample; empty where the tensor holds no pictures.

    Args:
        x: (B, C, H, W) float32 in [0, 1], on any device.
        rows: which samples.
    """
    if x.ndim != _IMAGE_AXES or x.shape[1] not in _MODES:
        return {}
    step = max(1, min(x.shape[2:]) // (_SPARE * SIDE))
    return {row: _png(x[row, :, ::step, ::step].float().cpu().numpy()) for row in rows}


def _png(pixels: npt.NDArray[np.float32]) -> str:
    """A PNG file of (C, H, W) in [0, 1], in base64."""
    grey = np.nan_to_num(pixels, nan=0.0).clip(0, 1)
    levels = (255 * grey).round().astype(np.uint8).transpose(1, 2, 0)  # (H, W, C)
    image = Image.fromarray(levels.squeeze(2) if levels.shape[2] == 1 else levels)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
