"""Detector on a local network: does one that imitates the model answer like the model?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from detectors.base import Detector, DetectorError, Evidence, Need
from detectors.surrogate_network import UsesSurrogate
from detectors.tails import Tails
from detectors.views import TEMPERATURE, choice_log_probability, tempered_divergence


class Surrogate(UsesSurrogate, Detector):
    """Disagreement of the model with a small network distilled from its own benign answers.

    Two measures: how improbable the surrogate finds the model's choice, -log p, and the log
    Jensen-Shannon divergence of both answers at a high temperature. Each is mapped to -log of the
    benign share above it, and they are added.

    Sees over-confident attacks best (measured on CIFAR-10, worst of 11 benign groups at 1 %, with a
    surrogate that agrees with the model on 76 % of fresh images: PGD-4 0.94, PGD-2 0.67, smooth
    PGD-8 0.57), and a share of boundary attacks (Carlini-Wagner 0.30, DeepFool 0.27, Square 0.18)
    limited by the agreement: benign images on which the two networks differ set the threshold
    (a surrogate that agrees on 72 %: 0.20, 0.22, 0.16).
    Does not see what fools both.

    Args:
        temperature: of the divergence, > 0.

    Source: Monteiro et al. 2019, bi-model decision mismatch (arXiv 1802.07770); distillation,
    Hinton et al. 2015 (arXiv 1503.02531). Known adaptive break: He et al., WOOT 2017 (arXiv
    1706.04701): attack both networks at once; whoever can query the model can distil a surrogate of
    their own, to which attacks transfer (Papernot et al., AsiaCCS 2017, arXiv 1602.02697).
    """

    name: ClassVar[str] = "surrogate"
    needs: ClassVar[Need] = Need.OUTPUT
    tier: ClassVar[int] = 3

    def __init__(self, temperature: float = TEMPERATURE) -> None:
        if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
            raise DetectorError(f"{self.name}: temperature must be > 0, not {temperature!r}")
        self._temperature = float(temperature)
        self._tails: Tails | None = None

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Learn the benign tails of both measures, over all groups together."""
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
        if len(tails.knots) != 2:
            raise DetectorError(f"{self.name}: the state is of another detector")
        self._tails = tails

    def _score(self, evidence: Evidence) -> Tensor:
        measures = self._measures(evidence)
        if self._tails is None:
            raise DetectorError(f"{self.name} was not fitted")
        return self._tails(measures).sum(dim=1)

    def _measures(self, evidence: Evidence) -> Tensor:
        """-log p of the model's choice and log divergence, (B, 2)."""
        output, logits, _ = self.read(evidence)
        doubt = -choice_log_probability(output, logits[None])
        divergence = tempered_divergence(output, logits[None], self._temperature)
        return torch.cat((doubt, divergence)).T
