"""Purifiers: transformations that keep an input's meaning and break adversarial structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purifiers.autoencoder import Autoencoder
from purifiers.base import Purifier, PurifierError
from purifiers.bit_depth import BitDepth
from purifiers.chain import Chain
from purifiers.denoiser import Denoiser
from purifiers.guided_denoiser import GuidedDenoiser
from purifiers.jpeg import Jpeg
from purifiers.median import Median
from purifiers.mirror import Mirror
from purifiers.noise import Noise
from purifiers.non_local_means import NonLocalMeans
from purifiers.patch_suppression import PatchSuppression
from purifiers.plugins import Plugins
from purifiers.quantise import Quantise
from purifiers.registry import construct
from purifiers.resize_pad import ResizePad
from purifiers.smooth import Smooth
from purifiers.tv import TotalVariation
from purifiers.wavelet import Wavelet

__all__ = [
    "PLUGINS",
    "PURIFIERS",
    "Autoencoder",
    "BitDepth",
    "Chain",
    "Denoiser",
    "GuidedDenoiser",
    "Jpeg",
    "Median",
    "Mirror",
    "Noise",
    "NonLocalMeans",
    "PatchSuppression",
    "Purifier",
    "PurifierError",
    "Quantise",
    "ResizePad",
    "Smooth",
    "TotalVariation",
    "Wavelet",
    "build",
]

PURIFIERS: dict[str, type[Purifier]] = {
    "bit_depth": BitDepth,
    "autoencoder": Autoencoder,
    "denoiser": Denoiser,
    "guided_denoiser": GuidedDenoiser,
    "jpeg": Jpeg,
    "median": Median,
    "mirror": Mirror,
    "noise": Noise,
    "non_local_means": NonLocalMeans,
    "patch_suppression": PatchSuppression,
    "resize_pad": ResizePad,
    "tv": TotalVariation,
    "wavelet": Wavelet,
    "quantise": Quantise,
    "smooth": Smooth,
}

PLUGINS: Plugins[Purifier] = Plugins(
    "breakwater.purifiers",
    Purifier,  # type: ignore[type-abstract]
    {},
    PurifierError,
)
"""What other distributions offer."""


def build(name: str, params: Mapping[str, Any] | None = None) -> Purifier:
    """Return the purifier registered under a name.

    Raises:
        PurifierError: unknown name or parameter (the text lists the valid ones), a value out
            of range, or a plug-in that cannot be used.
    """
    return construct(PURIFIERS, "purifier", name, params, PurifierError, PLUGINS)
