"""Detector with extra queries: does the answer survive transformations that keep the meaning?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from detectors.views import MEASURES, TEMPERATURE, ViewDisagreement, view_of
from purifiers.base import Kind

_DEFAULT_VIEWS: tuple[Mapping[str, Any], ...] = (
    {"name": "jpeg", "params": {"quality": 75}},
    {"name": "median", "params": {"size": 2}},
)
"""Chosen by measurement (CIFAR-10, worst of 11 benign groups of one strength each, at 1 %): JPEG-75
alone sees 0.84 of PGD 2/255 and 0.54 of DeepFool, with the median 0.93 and 0.65; JPEG-50 in place
of JPEG-75 or a bit-depth view added to both are worse. `mirror` in place of the median is better
where left and right mean nothing to the model: see `mirror_view`."""


class FeatureSqueezing(ViewDisagreement):
    """Change of the model's answer under squeezed copies of the input, all views together.

    Sees what the views undo: with the default ones PGD, DeepFool and Carlini-Wagner. Does not see
    smooth (low-frequency) perturbations, which survive squeezing.

    Args:
        views: purifiers by name and params, as in the configuration; one upstream query each.
        temperature: of the divergence, > 0.
        measures: see `ViewDisagreement`.

    Source: Xu, Evans, Qi, NDSS 2018 (arXiv 1704.01155), 3.3; log-probability shift after Roth,
    Kilcher, Hofmann, ICML 2019 (arXiv 1902.04818). Known adaptive break: He et al., WOOT 2017
    (arXiv 1706.04701), and Tramer et al., NeurIPS 2020 (arXiv 2002.08347): attack every view at
    once.
    """

    name: ClassVar[str] = "feature_squeezing"
    kinds: ClassVar[frozenset[Kind]] = frozenset(Kind)

    def __init__(
        self,
        views: Sequence[Mapping[str, Any]] = _DEFAULT_VIEWS,
        temperature: float = TEMPERATURE,
        measures: Sequence[str] = MEASURES,
    ) -> None:
        super().__init__([view_of(self.name, view) for view in views], temperature, measures)
