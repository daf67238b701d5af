"""Detector on the model's answer: a decision that is suspiciously close."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from detectors.answers import floored, shifted
from detectors.base import Detector, DetectorError, Evidence, Need
from purifiers.base import Kind

_LEAST = 1e-3
"""Added to the margin, in logits: closer than this, all decisions are alike."""


class Margin(Detector):
    """Minus the logarithm of the gap between the two largest logits.

    Sees attacks that stop at the decision boundary (DeepFool, Carlini-Wagner, HopSkipJump,
    Square). Blind to over-confident ones (PGD), which `energy` sees. Unchanged by adding a constant
    to all logits, so log-probabilities serve as well.

    Source: Hendrycks and Gimpel, ICLR 2017 (arXiv 1610.02136), with the margin in place of the
    largest probability. Known adaptive break: keep going past the boundary (confidence kappa of
    Carlini and Wagner, 2017, arXiv 1608.04644).
    """

    name: ClassVar[str] = "margin"
    needs: ClassVar[Need] = Need.OUTPUT
    tier: ClassVar[int] = 1
    kinds: ClassVar[frozenset[Kind]] = frozenset(Kind)

    def _score(self, evidence: Evidence) -> Tensor:
        if evidence.output is None:
            raise DetectorError("margin needs the model's output")
        first, second = floored(evidence.output).topk(2, dim=1).values.unbind(1)
        return -(first - second + _LEAST).log()

    def score_row(self, output: Sequence[float]) -> float | None:
        """See `Detector.score_row`."""
        row = shifted(output)
        if row is None:
            return None
        row.remove(0.0)  # the first
        return -math.log(_LEAST - max(row))
