"""An example of a detector: how many pixels lie at black or white."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from detectors import Detector, DetectorError, Evidence, Need


class Saturation(Detector):
    """Share of values at the ends of the range, in logs, against its benign mean.

    Sees clipped, strong perturbations, such as stickers. Does not see anything that keeps away
    from black and white, and is easily fooled by over-exposed photographs.

    Args:
        margin: how near to an end counts, in [0, 0.5).
    """

    name: ClassVar[str] = "saturation"
    needs: ClassVar[Need] = Need.INPUT  # of x, output, views; see `detectors.base.Need`
    tier: ClassVar[int] = 0

    def __init__(self, margin: float = 1 / 255) -> None:
        if not isinstance(margin, int | float) or not 0 <= margin < 0.5:
            raise DetectorError(f"saturation: margin must be in [0, 0.5), not {margin!r}")
        self._margin = float(margin)
        self._mean: Tensor | None = None

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Learn the benign mean, over all groups."""
        measured = torch.cat([self._measure(evidence.x) for evidence in benign.values()])
        if not len(measured) or not torch.isfinite(measured).all():
            raise DetectorError("saturation: needs benign images, all finite")
        self._mean = measured.mean()

    def state(self) -> dict[str, Tensor]:
        """What `fit` learned; stored with the calibration."""
        return {} if self._mean is None else {"mean": self._mean}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Restore what `fit` learned."""
        if set(state) != {"mean"}:
            raise DetectorError(f"saturation: the state has {sorted(state)}, not a mean")
        self._mean = state["mean"].to(device)

    def _score(self, evidence: Evidence) -> Tensor:
        if self._mean is None:
            raise DetectorError("saturation was not fitted")
        return self._measure(evidence.x) - self._mean

    def _measure(self, x: Tensor) -> Tensor:
        """(B,) log shares. Comparisons swallow NaN, so it is added back in."""
        flat = x.flatten(1)
        at_end = (flat <= self._margin) | (flat >= 1 - self._margin)
        return torch.log(at_end.float().mean(1) + 1e-3) + 0 * flat.sum(1)
