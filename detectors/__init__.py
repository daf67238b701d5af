"""Detectors: pure tensor maths that scores how unlike benign traffic a sample is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectors.band_residual import BandResidual
from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.chroma import Chroma
from detectors.denoised_view import DenoisedView
from detectors.denoiser_residual import DenoiserResidual
from detectors.energy import Energy
from detectors.ensemble import Ensemble
from detectors.entropy import Entropy
from detectors.feature_squeezing import FeatureSqueezing
from detectors.flat_noise import FlatNoise
from detectors.high_frequency import HighFrequency
from detectors.jpeg_view import JpegView
from detectors.lid import LocalDimension
from detectors.mahalanobis import Mahalanobis
from detectors.margin import Margin
from detectors.mirror_view import MirrorView
from detectors.nearest_neighbours import NearestNeighbours
from detectors.noise_stability import NoiseStability
from detectors.patch import Patch
from detectors.purified_view import PurifiedView
from detectors.query_history import QueryHistory
from detectors.residual import Residual
from detectors.residual_cnn import ResidualCnn
from detectors.srm import Srm
from detectors.strip import Strip
from detectors.surrogate import Surrogate
from detectors.vector_autoencoder import VectorAutoencoder
from detectors.vector_mahalanobis import VectorMahalanobis
from detectors.vector_neighbours import VectorNeighbours
from purifiers.plugins import Plugins
from purifiers.registry import construct

__all__ = [
    "DETECTORS",
    "PLUGINS",
    "DenoiserResidual",
    "Detector",
    "DetectorError",
    "Evidence",
    "Need",
    "build",
]

DETECTORS: dict[str, type[Detector]] = {
    "residual": Residual,
    "chroma": Chroma,
    "high_frequency": HighFrequency,
    "flat_noise": FlatNoise,
    "srm": Srm,
    "patch": Patch,
    "denoiser_residual": DenoiserResidual,
    "residual_cnn": ResidualCnn,
    "margin": Margin,
    "energy": Energy,
    "entropy": Entropy,
    "feature_squeezing": FeatureSqueezing,
    "jpeg_view": JpegView,
    "mirror_view": MirrorView,
    "denoised_view": DenoisedView,
    "purified_view": PurifiedView,
    "noise_stability": NoiseStability,
    "strip": Strip,
    "ensemble": Ensemble,
    "surrogate": Surrogate,
    "mahalanobis": Mahalanobis,
    "nearest_neighbours": NearestNeighbours,
    "lid": LocalDimension,
    "vector_mahalanobis": VectorMahalanobis,
    "vector_neighbours": VectorNeighbours,
    "vector_autoencoder": VectorAutoencoder,
    "band_residual": BandResidual,
    "history": QueryHistory,
}

PLUGINS: Plugins[Detector] = Plugins(
    "breakwater.detectors",
    Detector,  # type: ignore[type-abstract]
    {"needs": Need, "tier": int},
    DetectorError,
)
"""What other distributions offer."""


def build(name: str, params: Mapping[str, Any] | None = None) -> Detector:
    """Return the detector registered under a name, not yet fitted.

    Raises:
        DetectorError: unknown name or parameter (the text lists the valid ones), a value out
            of range, or a plug-in that cannot be used.
    """
    return construct(DETECTORS, "detector", name, params, DetectorError, PLUGINS)
