"""Detector with one extra query: does the answer survive JPEG compression?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from detectors.views import MEASURES, TEMPERATURE, ViewDisagreement, view_of


class JpegView(ViewDisagreement):
    """Change of the model's answer under JPEG compression.

    Sees PGD, DeepFool and Carlini-Wagner, whose fine texture the compression takes away. Does not
    see smooth (low-frequency) perturbations, which it keeps.

    Args:
        quality: 1 to 100. The default serves weak attacks best; lower ones change more benign
            answers.
        temperature: of the divergence, > 0.
        measures: see `ViewDisagreement`.

    Source: Das et al. 2018 (arXiv 1802.06816), JPEG as a defence; the comparison after Xu, Evans,
    Qi, NDSS 2018 (arXiv 1704.01155), 3.3. Known adaptive break: Shin and Song 2017, gradients
    through a differentiable JPEG; Athalye et al., ICML 2018 (arXiv 1802.00420).
    """

    name: ClassVar[str] = "jpeg_view"

    def __init__(
        self,
        quality: int = 75,
        temperature: float = TEMPERATURE,
        measures: Sequence[str] = MEASURES,
    ) -> None:
        view = view_of(self.name, {"name": "jpeg", "params": {"quality": quality}})
        super().__init__([view], temperature, measures)
