"""Detector with one extra query: does the answer survive in the mirror?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from detectors.views import MEASURES, TEMPERATURE, ViewDisagreement, view_of


class MirrorView(ViewDisagreement):
    """Change of the model's answer when left and right are swapped.

    A model trained on mirrored images too answers alike on both; a perturbation is made for one of
    them and mostly fails in the mirror, however smooth it is. Sees smooth PGD, which every view
    that removes texture lets through (share detected at 1 % of the worst of 11 benign groups,
    CIFAR-10, 4 and 8/255: 0.36 and 0.70, JPEG-75 0.04 and 0.04), and strong PGD. Sees little where
    left and right matter to the model (text, digits, road signs): there benign answers change as
    much. Blind to patches and to perturbations made symmetric.

    Args:
        temperature: of the divergence, > 0.
        measures: see `ViewDisagreement`.

    Source: Tian, Yang, Cai, AAAI 2018, "Detecting Adversarial Examples through Image
    Transformation", there with rotations and shifts. Known adaptive break: attack both copies at
    once (expectation over transformation, Athalye et al., ICML 2018, arXiv 1707.07397).
    """

    name: ClassVar[str] = "mirror_view"

    def __init__(
        self, temperature: float = TEMPERATURE, measures: Sequence[str] = MEASURES
    ) -> None:
        super().__init__([view_of(self.name, {"name": "mirror"})], temperature, measures)
