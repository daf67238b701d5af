"""One policy at many false-positive rates, from its calibration alone; imports torch.

Fusing does not depend on the rate: the thresholds of all rates come of one fit, and a score that
was recorded under one rate stands under any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from detectors.calibration import Calibration
from detectors.rule import Rule, Threshold
from proxy import parts
from proxy.config import Model
from proxy.rules import Rules

RATES = 60
LEAST_FPR, LARGEST_FPR = 0.0005, 0.2
"""Ends of the grid; where the calibration has too few samples for the least, it begins at the least
rate that they support."""

Floats = npt.NDArray[np.float32]


class Sweep:
    """A policy, and its thresholds at other rates.

    Args:
        name: of the model.
        model: the policy.
        calibration: what its detectors were calibrated with.

    Raises:
        ConfigError: the calibration does not support the policy's own rate.
    """

    def __init__(self, name: str, model: Model, calibration: Calibration) -> None:
        self.model = model
        self._rules = Rules(name, model, calibration, parts.build_detectors(model))
        least = max(LEAST_FPR, calibration.least_fpr)
        grid = np.geomspace(least, max(LARGEST_FPR, least), RATES).tolist()
        self.fprs: tuple[float, ...] = tuple(grid)
        self._fit()

    def _fit(self) -> None:
        self._whole: Rule = self._rules.whole
        rules = self._rules.sweep(self.fprs)
        self.thresholds: tuple[Threshold, ...] = tuple(rule.threshold for rule in rules)

    def refreshed(self) -> Sweep:
        """This, drawn anew where a secret draws the detectors and its epoch has ended."""
        if self._rules.rotate():
            self._fit()
        return self

    @property
    def detectors(self) -> tuple[str, ...]:
        """The detectors whose scores it fuses, as configured."""
        return tuple(part.name for part in self.model.detectors)

    @property
    def threshold(self) -> Threshold:
        """At the policy's own rate."""
        return self._whole.threshold

    def fused(self, scores: Mapping[str, Floats]) -> Floats:
        """The fused score of each sample, (N,) float32.

        Args:
            scores: detector -> (N,), NaN where it did not look; for all `detectors`.

        Returns:
            NaN where the sample needs a score that is not there. A sample that the cascade settles
            with the scores there are has its score from there.
        """
        tensors = {
            name: torch.from_numpy(np.array(scores[name], np.float32)) for name in self.detectors
        }
        with torch.inference_mode():
            fused: Floats = self._whole.score(tensors).numpy()
        return fused

    def policy(self) -> dict[str, Any]:
        """What it is, for JSON."""
        model, threshold = self.model, self.threshold
        return {
            "fpr": model.fpr,
            "threshold": number(threshold.value),
            "fpr_upper": threshold.fpr_upper,
            "samples": threshold.samples,
            "worst_group": threshold.worst_group,
            "detectors": list(self.detectors),
            "cascade": None if model.cascade is None else model.cascade.model_dump(),
            "mode": model.mode,
            "action": model.action,
            "on_failure": model.on_failure,
        }

    def grid(self) -> dict[str, list[Any]]:
        """Rates, their thresholds, and upper bounds of the rates on benign samples, for JSON."""
        return {
            "fprs": list(self.fprs),
            "thresholds": [number(each.value) for each in self.thresholds],
            "benign_upper": [each.fpr_upper for each in self.thresholds],
        }


def number(value: float) -> float | None:
    """A number for JSON, which has none that are not finite."""
    return value if math.isfinite(value) else None


def numbers(values: Floats) -> list[float | None]:
    """The same for many."""
    return [number(value) for value in values.tolist()]
