"""Detector with one extra query: does the answer survive a trained denoiser?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from detectors.views import MEASURES, TEMPERATURE, ViewDisagreement, view_of


class DenoisedView(ViewDisagreement):
    """Change of the model's answer under a denoiser, or any one purifier.

    Sees what the purifier takes away: unstructured perturbations with the blind denoiser, most
    attacks of the kind it was trained on with the guided one. Does not see what passes through it.

    Args:
        purifier: its name.
        params: its parameters.
        temperature: of the divergence, > 0.
        measures: see `ViewDisagreement`.

    Source: Meng and Chen, CCS 2017 (arXiv 1705.09064), 3.3, the detector based on probability
    divergence. Known adaptive break: Carlini and Wagner 2017 (arXiv 1711.08478); gradients pass
    through the network.
    """

    name: ClassVar[str] = "denoised_view"

    def __init__(
        self,
        purifier: str = "denoiser",
        params: Mapping[str, Any] | None = None,
        temperature: float = TEMPERATURE,
        measures: Sequence[str] = MEASURES,
    ) -> None:
        view = view_of(self.name, {"name": purifier, "params": params})
        super().__init__([view], temperature, measures)
