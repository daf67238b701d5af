"""Detector with extra queries: does the answer drift under noise as benign answers drift?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.answers import floored
from detectors.base import Detector, DetectorError, Evidence, Need
from purifiers import Noise, Purifier, PurifierError

_SHRINK = 30.0
"""Benign samples of a class at which its own statistics weigh as much as those of all classes."""
_LEAST = 1e-3
"""Added standard deviation, in logits: an answer that never moves has no scale."""


class NoiseStability(Detector):
    """Largest z-score of the log-odds that noise moves away from the model's choice.

    Under noise, the log-odds of another class against the chosen one move by an amount that is
    typical of the pair of classes. Adversarial examples lie in odd corners of their class: noise
    moves them back towards where they came from by more. The movement is averaged over the draws
    and put on the scale of the pair's benign mean and standard deviation; pairs whose chosen class
    was rarely seen lean on the statistics of all pairs.

    Sees over-confident attacks (PGD at 4/255 and more). Does not see smooth perturbations, which
    noise leaves alone, nor, beside benign images of low contrast, minimal ones: those drift as far
    (CIFAR-10, 1 % of the worst of 11 benign groups: PGD 4/255 0.90, Carlini-Wagner and DeepFool
    0.00).

    Args:
        sigma: standard deviation of the noise in 1/255, > 0.
        draws: noisy copies, 1 to 64; one upstream query each.

    Source: Roth, Kilcher, Hofmann, ICML 2019 (arXiv 1902.04818), there with thresholds for each
    pair. Known adaptive break: Tramer et al., NeurIPS 2020 (arXiv 2002.08347): make the log-odds
    drift as benign ones do.
    """

    name: ClassVar[str] = "noise_stability"
    needs: ClassVar[Need] = Need.VIEWS
    tier: ClassVar[int] = 2

    def __init__(self, sigma: float = 8.0, draws: int = 2) -> None:
        if draws not in range(1, 65):
            raise DetectorError(f"{self.name}: draws must be 1 to 64, not {draws!r}")
        try:
            self._views = tuple(Noise(sigma, draw) for draw in range(int(draws)))
        except PurifierError as error:
            raise DetectorError(f"{self.name}: {error}") from error
        self._mean: Tensor | None = None  # (K, K): chosen class, other class
        self._deviation: Tensor | None = None

    @property
    def views(self) -> tuple[Purifier, ...]:
        """See `Detector.views`."""
        return self._views

    def fit(self, benign: Mapping[str, Evidence]) -> None:
        """Learn mean and spread of the drift of every pair, over all groups together."""
        with torch.inference_mode():
            drifts, chosen = zip(*(self._drift(part) for part in benign.values()), strict=True)
            drift, labels = torch.cat(drifts).double(), torch.cat(chosen)
            if len(drift) < 20 or not torch.isfinite(drift).all():
                raise DetectorError(f"{self.name}: needs at least 20 benign samples, all finite")
            moments = torch.stack((drift, drift.square()))  # (2, n, K)
            member = F.one_hot(labels, drift.shape[1]).double()  # (n, K)
            count = member.sum(0)[:, None]  # (K, 1)
            # The chosen class's own drift is 0 by construction and tells nothing.
            pooled = moments.sum((1, 2)) / (drift.shape[0] * (drift.shape[1] - 1))
            first, second = (
                (member.T @ moment + _SHRINK * prior) / (count + _SHRINK)
                for moment, prior in zip(moments, pooled, strict=True)
            )
            deviation = (second - first.square()).clamp_min(0).sqrt() + _LEAST
        self._mean, self._deviation = first.float().clone(), deviation.float().clone()

    def state(self) -> dict[str, Tensor]:
        """See `Detector.state`."""
        if self._mean is None or self._deviation is None:
            return {}
        return {"mean": self._mean, "deviation": self._deviation}

    def load_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """See `Detector.load_state`."""
        if set(state) != {"mean", "deviation"} or state["mean"].shape != state["deviation"].shape:
            raise DetectorError(
                f"{self.name}: expected mean and deviation of one shape, not {sorted(state)}"
            )
        self._mean, self._deviation = state["mean"].to(device), state["deviation"].to(device)

    def _score(self, evidence: Evidence) -> Tensor:
        if self._mean is None or self._deviation is None:
            raise DetectorError(f"{self.name} was not fitted")
        drift, chosen = self._drift(evidence)
        if drift.shape[1] != len(self._mean):
            raise DetectorError(
                f"{self.name} was fitted on {len(self._mean)} classes, not {drift.shape[1]}"
            )
        z = (drift - self._mean[chosen]) / self._deviation[chosen]  # (B, K)
        return z.scatter(1, chosen[:, None], -math.inf).amax(dim=1)

    def _drift(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Mean move of the log-odds of every class against the chosen one, (B, K); choices (B,)."""
        if evidence.output is None:
            raise DetectorError(f"{self.name} needs the model's output")
        output = floored(evidence.output)
        noisy = torch.stack([floored(evidence.views[view.key]) for view in self._views]).mean(0)
        move = noisy - output
        chosen = output.argmax(dim=1)
        return move - move.gather(1, chosen[:, None]), chosen
