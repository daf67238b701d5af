"""Benign variations of rows: what measuring, storing and passing on do to a table."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from detectors.standard import Standard
from purifiers.quantise import Quantise

_MISSING_SHARE = 0.05
"""Share of the features, at most, of which one row misses the values; at least one feature."""

_Vary = Callable[[Tensor, torch.Generator], Tensor]


def variations(x: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the groups beside the clean rows: name -> (N, D) float32, as `benign.variations`.

    Features that hold whole numbers only (counts, flags, codes) are neither jittered nor rounded.
    """
    whole = (x == x.round()).all(dim=0)  # (D,)
    groups = {name: torch.where(whole, x, vary(x, generator)) for name, vary in _MEASURED.items()}
    return {**groups, "missing": _missing(x, generator)}


def _jitter(low: float, high: float) -> _Vary:
    """Gaussian noise on every feature, sigma in spreads of the feature: another instrument."""

    def vary(x: Tensor, generator: torch.Generator) -> Tensor:
        strength = low + (high - low) * torch.rand(len(x), 1, generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        return x + (strength * noise).to(x.device) * _spread(x)

    return vary


def _rounding(digits: int) -> _Vary:
    """So many significant digits: another way to store."""
    return lambda x, generator: Quantise(digits=digits).purify(x)


def _missing(x: Tensor, generator: torch.Generator) -> Tensor:
    """A few features of each row at their median, which is what tables put for a missing value."""
    rows, features = x.shape
    most = max(1, int(_MISSING_SHARE * features))
    count = torch.randint(1, most + 1, (rows, 1), generator=generator)
    order = torch.rand(x.shape, generator=generator).argsort(dim=1).argsort(dim=1)
    centre = Standard.fit(x).centre if rows > 1 else x
    return torch.where((order < count).to(x.device), centre, x)


def _spread(x: Tensor) -> Tensor:
    return Standard.fit(x).scale if len(x) > 1 else torch.zeros_like(x)


_MEASURED: dict[str, _Vary] = {
    "weak_jitter": _jitter(0.0, 0.02),
    "strong_jitter": _jitter(0.02, 0.05),
    "fine_rounding": _rounding(3),
    "coarse_rounding": _rounding(2),
}
