"""Input-only detector: how much does a denoiser want to take out of this image, and where?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.tails import Tails
from purifiers.denoiser import DenoiserRecipe
from purifiers.learned import Learned, Recipe
from purifiers.pieces import in_pieces

_FLOOR = 0.25 / 255
"""Added before the logarithm: residuals below what 8 bits can hold are all alike."""
_FLAT = 4 / 255
"""Local contrast at which a pixel's weight in the flat-area average has halved."""
_SPOT = 5
"""Side of the window, in pixels, whose average counts as local."""
_PART = 128
"""Images at a time while fitting, to bound memory."""


class DenoiserResidual(Learned, Detector):
    """Size of what the blind denoiser removes: at one spot, and of its grey part in flat areas.

    Sensor noise is independent between colours, while an attack on luminance moves them together:
    the grey part, averaged over the channels before its size is taken, keeps the attack and
    loses two thirds of the noise's energy. Three logarithms (the largest local average, the grey
    part's largest local average, and the grey part in flat areas), each on the scale of its own
    benign tail; the largest counts. One-sided, so a pipeline nobody calibrated on that smooths its
    images stays quiet.

    Sees traces stronger than any benign noise calibrated on: FGSM, patches, half of Square and two
    fifths of PGD at 8/255 (threshold at 1 % of the worst group). Does not see PGD at 2-4/255
    beside noise of sigma 5/255, minimal attacks (CW, DeepFool) or smooth ones.

    Source: Meng and Chen, CCS 2017 (arXiv 1705.09064), 3.3, reconstruction error of an
    autoencoder; the split by place and colour is our own. Known adaptive break: Carlini and Wagner
    2017 (arXiv 1711.08478), or any low-frequency perturbation.
    """

    name: ClassVar[str] = "denoiser_residual"
    needs: ClassVar[Need] = Need.INPUT
    tier: ClassVar[int] = 0
    recipe: ClassVar[Recipe] = DenoiserRecipe()

    def __init__(self) -> None:
        self._tails: Tails | None = None

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Learn the tails of all groups together; 20 images at least."""
        with torch.inference_mode():
            features = [
                self._features(part)
                for evidence in benign.values()
                for part in torch.split(evidence.x, _PART)
            ]
        self._tails = Tails.fit(torch.cat(features))

    def state(self) -> dict[str, Tensor]:
        """See `Detector.state`."""
        return self._tails.state() if self._tails else {}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """See `Detector.load_state`."""
        self._tails = Tails.from_state(state, device)

    def _score(self, evidence: Evidence) -> Tensor:
        features = self._features(evidence.x)
        if self._tails is None:
            raise DetectorError(f"{self.name} was not fitted")
        return self._tails(features).amax(dim=1)

    def _features(self, x: Tensor) -> Tensor:
        """Logarithms of the mean absolute residual, (B, 3): see the class."""
        restored = in_pieces(self.trained(DetectorError), x)
        residual = x - restored
        size = residual.abs().mean(dim=1, keepdim=True)  # (B, 1, H, W)
        grey = residual.mean(dim=1, keepdim=True).abs()
        weight = _FLAT / (_contrast(restored) + _FLAT)
        statistics = (
            _blurred(size).amax(dim=(1, 2, 3)),
            _blurred(grey).amax(dim=(1, 2, 3)),
            (weight * grey).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)),
        )
        return torch.log(torch.stack(statistics, dim=1) + _FLOOR)


def _contrast(x: Tensor) -> Tensor:
    """Mean absolute difference from the surroundings, (B, 1, H, W)."""
    return _blurred((x - _blurred(x)).abs().mean(dim=1, keepdim=True))


def _blurred(x: Tensor) -> Tensor:
    """Mean of the window around each pixel, edges repeated, (B, C, H, W)."""
    margin = _SPOT // 2
    padded = F.pad(x, (margin, margin, margin, margin), mode="replicate")
    return F.avg_pool2d(padded, _SPOT, stride=1)
