"""Detector on the model's answer: an answer spread over several classes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from detectors.answers import floored
from detectors.base import Detector, DetectorError, Evidence, Need
from purifiers.base import Kind

_LEAST = 1e-6
"""Added to the entropy, in nats: surer than this, all answers are alike."""


class Entropy(Detector):
    """Logarithm of the entropy of the softmax.

    Sees attacks that stop at the decision boundary, as `margin` does, and answers spread over more
    than two classes, which `margin` cannot tell from a close decision. Blind to over-confident
    attacks (PGD), which `energy` sees. Log-probabilities serve as well as logits.

    Source: Smith and Gal, UAI 2018 (arXiv 1803.08533), predictive entropy, of one network here.
    Known adaptive break: keep going past the boundary (confidence kappa of Carlini and Wagner,
    2017, arXiv 1608.04644).
    """

    name: ClassVar[str] = "entropy"
    needs: ClassVar[Need] = Need.OUTPUT
    tier: ClassVar[int] = 1
    kinds: ClassVar[frozenset[Kind]] = frozenset(Kind)

    def _score(self, evidence: Evidence) -> Tensor:
        if evidence.output is None:
            raise DetectorError("entropy needs the model's output")
        logs = floored(evidence.output).log_softmax(dim=1)
        entropy = -(logs.exp() * logs).sum(dim=1)
        return (entropy.clamp_min(0) + _LEAST).log()
