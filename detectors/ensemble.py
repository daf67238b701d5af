"""Detector with other models: do they, on the same input, answer alike?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from detectors.base import Detector, DetectorError, Evidence, Need, peer_key
from detectors.tails import Tails
from detectors.views import TEMPERATURE, choice_log_probability, tempered_divergence
from purifiers.base import Kind


class Ensemble(Detector):
    """Disagreement with other models of the same server about the same input.

    Two measures, each the mean over the other models: how improbable they find the model's choice,
    -log p, and the log Jensen-Shannon divergence at a high temperature. Each is mapped to -log of
    the benign share above it, and they are added.

    Sees attacks made for this model alone, boundary attacks (DeepFool, HopSkipJump) among them.
    Does not see perturbations that transfer to the other models, as smooth and strong ones do.

    Args:
        models: names of the other models; the same classes in the same order. One upstream query
            each, of the unchanged input.
        temperature: of the divergence, > 0.

    Source: Bagnall, Bunescu, Stewart 2017 (arXiv 1712.04006), disagreement of ensemble members;
    Monteiro et al. 2019, bi-model decision mismatch (arXiv 1802.07770). Known adaptive break: He et
    al., WOOT 2017 (arXiv 1706.04701); attack all members at once.
    """

    name: ClassVar[str] = "ensemble"
    needs: ClassVar[Need] = Need.VIEWS
    tier: ClassVar[int] = 3
    kinds: ClassVar[frozenset[Kind]] = frozenset(Kind)

    def __init__(self, models: Sequence[str] = (), temperature: float = TEMPERATURE) -> None:
        if isinstance(models, str) or not models or len(set(models)) != len(models):
            raise DetectorError(
                f"{self.name}: models is a list of other models' names, each once, not {models!r}"
            )
        if not isinstance(temperature, int | float) or not 0 < temperature < float("inf"):
            raise DetectorError(f"{self.name}: temperature must be > 0, not {temperature!r}")
        self._peers = tuple(models)
        self._temperature = float(temperature)
        self._tails: Tails | None = None

    @property
    def peers(self) -> tuple[str, ...]:
        """See `Detector.peers`."""
        return self._peers

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
        if tails.knots.shape[0] != 2:
            raise DetectorError(f"{self.name}: the state is of another detector")
        self._tails = tails

    def _score(self, evidence: Evidence) -> Tensor:
        if self._tails is None:
            raise DetectorError(f"{self.name} was not fitted")
        return self._tails(self._measures(evidence)).sum(dim=1)

    def _measures(self, evidence: Evidence) -> Tensor:
        """Mean -log p of the model's choice and mean log divergence, (B, 2)."""
        if evidence.output is None:
            raise DetectorError(f"{self.name} needs the model's output")
        others = [evidence.views[peer_key(peer)] for peer in self._peers]
        foreign = [other.shape[1] for other in others if other.shape != evidence.output.shape]
        if foreign:
            raise DetectorError(
                f"{self.name}: the other models answer with {foreign} classes, this one with "
                f"{evidence.output.shape[1]}"
            )
        answers = torch.stack(others)  # (V, B, K)
        doubt = -choice_log_probability(evidence.output, answers).mean(0)
        divergence = tempered_divergence(evidence.output, answers, self._temperature).mean(0)
        return torch.stack((doubt, divergence), dim=1)
