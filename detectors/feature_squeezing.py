"""Detector with extra queries: does the answer survive transformations that keep the meaning?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from detectors.answers import floored
from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.tails import Tails
from purifiers import Purifier, PurifierError, build

_DEFAULT_VIEWS: tuple[Mapping[str, Any], ...] = (
    {"name": "jpeg", "params": {"quality": 75}},
    {"name": "median", "params": {"size": 2}},
)
"""Chosen by measurement (CIFAR-10, worst of 11 benign groups of one strength each, at 1 %): JPEG-75
alone sees 0.84 of PGD 2/255 and 0.54 of DeepFool, with the median 0.93 and 0.65; JPEG-50 in place
of JPEG-75 or a bit-depth view added to both are worse. A third view, JPEG-50, adds some on smooth
attacks."""
_LEAST = 1e-8
"""Divergence below which views agree to the precision of float32."""


class FeatureSqueezing(Detector):
    """Change of the model's answer under squeezed copies of the input.

    Two measures for each view: the Jensen-Shannon divergence of the softmax at a high temperature,
    which sees over-confident attacks (at temperature 1 their softmax hardly moves), and the loss
    of log-probability of the model's own choice, which sees boundary attacks. Each is put on the
    scale of its benign tail, -log p, and they are added.

    Args:
        views: purifiers by name and params, as in the configuration; one upstream query each.
        temperature: of the divergence, > 0.

    Source: Xu, Evans, Qi, NDSS 2018 (arXiv 1704.01155), 3.3; log-probability shift after Roth,
    Kilcher, Hofmann, ICML 2019 (arXiv 1902.04818). Known adaptive break: He et al., WOOT 2017
    (arXiv 1706.04701), and Tramer et al., NeurIPS 2020 (arXiv 2002.08347): attack every view at
    once.
    """

    name: ClassVar[str] = "feature_squeezing"
    needs: ClassVar[Need] = Need.VIEWS
    tier: ClassVar[int] = 2

    def __init__(
        self, views: Sequence[Mapping[str, Any]] = _DEFAULT_VIEWS, temperature: float = 10.0
    ) -> None:
        if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise DetectorError(f"{self.name}: temperature must be > 0, not {temperature!r}")
        self._temperature = float(temperature)
        self._views = tuple(_view(view) for view in views)
        if len({view.key for view in self._views}) != len(views) or not views:
            raise DetectorError(f"{self.name}: needs at least one view, and each only once")
        self._tails: Tails | None = None

    @property
    def views(self) -> tuple[Purifier, ...]:
        """See `Detector.views`."""
        return self._views

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Learn the benign tails of every measure, over all groups together."""
        with torch.inference_mode():
            measures = torch.cat([self._measures(evidence) for evidence in benign.values()])
        if len(measures) < 20 or not torch.isfinite(measures).all():
            raise DetectorError(f"{self.name}: needs at least 20 benign samples, all finite")
        self._tails = Tails.fit(measures)

    def state(self) -> dict[str, Tensor]:
        """See `Detector.state`."""
        return self._tails.state() if self._tails else {}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """See `Detector.load_state`."""
        tails = Tails.from_state(state, device)
        if tails.knots.shape[0] != 2 * len(self._views):
            raise DetectorError(f"{self.name}: the state is of other views")
        self._tails = tails

    def _score(self, evidence: Evidence) -> Tensor:
        if self._tails is None:
            raise DetectorError(f"{self.name} was not fitted")
        return self._tails(self._measures(evidence)).sum(dim=1)

    def _measures(self, evidence: Evidence) -> Tensor:
        """Log divergence and log-probability loss by view, (B, 2V)."""
        if evidence.output is None or any(v.key not in evidence.views for v in self._views):
            raise DetectorError(f"{self.name} needs the model's output and all its views")
        answers = torch.stack([evidence.output, *(evidence.views[v.key] for v in self._views)])
        answers = floored(answers.flatten(0, 1)).view(answers.shape)  # (V+1, B, K)
        cold = answers.log_softmax(dim=2)
        hot = (answers / self._temperature).log_softmax(dim=2)
        divergence = _jensen_shannon(hot[:1], hot[1:])  # (V, B)
        chosen = cold[:1].argmax(dim=2, keepdim=True)  # (1, B, 1)
        kept = cold.gather(2, chosen.expand(len(cold), -1, 1)).squeeze(2)  # (V+1, B)
        measures = torch.cat(((divergence.clamp_min(0) + _LEAST).log(), kept[:1] - kept[1:]))
        return measures.T


def _jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of log-probabilities over the last axis, nats, in [0, log 2]."""
    middle = torch.logaddexp(p, q) - math.log(2)
    return ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / 2


def _view(part: Mapping[str, Any]) -> Purifier:
    if not isinstance(part, Mapping) or "name" not in part or set(part) - {"name", "params"}:
        raise DetectorError(f"feature_squeezing: a view is {{name, params}}, not {part!r}")
    try:
        return build(part["name"], part.get("params"))
    except PurifierError as error:
        raise DetectorError(f"feature_squeezing: view {error}") from error
