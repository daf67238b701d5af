"""Features of rows on a common scale that outliers do not move."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detectors.base import DetectorError

_NORMAL_IQR = 1.349
"""Interquartile range of a normal distribution of standard deviation 1."""
_LEAST_SHARE = 0.1
"""Least spread, in standard deviations: where more than half of the rows hold one value (counts,
flags), the interquartile range is 0."""
_LEAST_DIGITS = 1e-3
"""Least spread, as a share of the feature's size: a feature constant on benign rows has none."""
_MOST = 1e6
"""Spreads from the centre beyond which all values are alike. Products of larger ones would
overflow, and a row without a score is not one that is suspicious."""


class Standard:
    """Rows (N, D) less the benign median, in benign spreads, large deviations compressed.

    The inverse hyperbolic sine is linear within a spread or so and logarithmic beyond, since the
    features of tables have heavy tails.

    Args:
        centre: (D,) medians.
        scale: (D,) spreads, > 0.
    """

    def __init__(self, centre: Tensor, scale: Tensor) -> None:
        self.centre, self.scale = centre, scale

    @classmethod
    def fit(cls, x: Tensor) -> Standard:
        """Learn from benign rows, (n, D).

        Raises:
            DetectorError: fewer than 2 rows, or values that are not finite.
        """
        if len(x) < 2 or not torch.isfinite(x).all():
            raise DetectorError("needs at least 2 benign rows, all finite")
        ordered = x.double().sort(dim=0).values  # torch.quantile takes no more than 2^24 values
        last = len(x) - 1
        low, centre, high = (ordered[round(level * last)] for level in (0.25, 0.5, 0.75))
        spread = torch.maximum((high - low) / _NORMAL_IQR, _LEAST_SHARE * ordered.std(dim=0))
        # A feature that is always 0 has no size either; the others' typical spread stands in.
        size = centre.abs() + spread.median()
        scale = torch.maximum(spread, _LEAST_DIGITS * size).clamp_min(1e-30)
        return cls(centre.float(), scale.float())

    def __call__(self, x: Tensor) -> Tensor:
        """Return (N, D) within +-15; NaN where a value is not finite."""
        # Clamping would hide an infinity: 0 * inf keeps it visible as NaN.
        return ((x - self.centre) / self.scale).clamp(-_MOST, _MOST).asinh() + 0 * x

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs."""
        return {"centre": self.centre, "scale": self.scale}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], device: torch.device) -> Standard:
        """The inverse of `state`, on the given device; other entries are left alone.

        Raises:
            DetectorError: a part is missing.
        """
        if not {"centre", "scale"} <= set(state):
            raise DetectorError(f"expected centre and scale, not {sorted(state)}")
        return cls(state["centre"].to(device), state["scale"].to(device))
