"""Detectors: pure tensor maths that scores how unlike benign traffic a sample is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.denoiser_residual import DenoiserResidual
from detectors.energy import Energy
from detectors.feature_squeezing import FeatureSqueezing
from detectors.margin import Margin
from detectors.residual import Residual
from detectors.residual_cnn import ResidualCnn
from purifiers.registry import construct

__all__ = [
    "DETECTORS",
    "DenoiserResidual",
    "Detector",
    "DetectorError",
    "Evidence",
    "Need",
    "build",
]

DETECTORS: dict[str, type[Detector]] = {
    "residual": Residual,
    "denoiser_residual": DenoiserResidual,
    "residual_cnn": ResidualCnn,
    "margin": Margin,
    "energy": Energy,
    "feature_squeezing": FeatureSqueezing,
}


def build(name: str, params: Mapping[str, Any] | None = None) -> Detector:
    """Return the detector registered under a name, not yet fitted.

    Raises:
        DetectorError: unknown name or parameter (the text lists the valid ones), or a value out
            of range.
    """
    return construct(DETECTORS, "detector", name, params, DetectorError)
