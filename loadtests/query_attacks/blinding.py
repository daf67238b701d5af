"""Query blinding: small changes that keep an image's class and break fingerprints of it.

Source: Chen, Carlini, Wagner, SPAI 2020 (arXiv 1907.05587), section 5.
"""

from __future__ import annotations

import numpy as np

from tuning.evaluate.oracle import Image

SHIFT = 3
"""Pixels, most, in each direction."""
BRIGHTNESS = 0.1
NOISE = 2 / 255


class Blinding:
    """A random shift, brightness and Gaussian noise for each query.

    Args:
        shift: most pixels in each direction; edges are repeated.
        brightness: most relative change.
        noise: standard deviation, pixels in [0, 1].
    """

    def __init__(
        self,
        seed: int,
        *,
        shift: int = SHIFT,
        brightness: float = BRIGHTNESS,
        noise: float = NOISE,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._shift, self._brightness, self._noise = shift, brightness, noise

    def __call__(self, image: Image) -> Image:
        """A changed copy, in [0, 1]."""
        _, height, width = image.shape
        pad = self._shift
        wide = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
        top, left = self._rng.integers(0, 2 * pad + 1, 2)
        moved = wide[:, top : top + height, left : left + width]
        gain = 1 + self._rng.uniform(-self._brightness, self._brightness)
        grain = self._rng.normal(0, self._noise, image.shape)
        return (moved * gain + grain).clip(0, 1).astype(np.float32)
