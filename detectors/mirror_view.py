"""Detector with one extra query: does the answer survive in the mirror?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from detectors.views import MEASURES, TEMPERATURE, ViewDisagreement, view_of


class MirrorView(ViewDisagreement):
    """Change of the model's answer when left and right are swapped.

    A model trained on mirrored images too answers alike on both; a perturbation is made for one of
    them and mostly fails in the mirror, however smooth it is. Sees smooth PGD, which the views
    that remove texture let through, and patches (CIFAR-10, 1 % of the worst of 11 benign groups,
    smooth PGD 4 and 8/255 and an 8x8 patch: 0.37, 0.66 and 0.64; JPEG-75: 0.08, 0.03 and 0.00),
    and strong PGD. Sees less of minimal attacks than `jpeg_view`. Sees little where left and right
    matter to the model (text, digits, road signs): there benign answers change as much. Blind to
    perturbations made for both copies.

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
