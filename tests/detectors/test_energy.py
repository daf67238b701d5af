from __future__ import annotations

import math

import pytest
import torch

from detectors import Detector, Evidence, build

X = torch.zeros(1, 1, 4, 4)


def score(detector: Detector, *logits: float) -> float:
    return detector.score(Evidence(X, torch.tensor([logits]))).item()


def test_energy_by_hand() -> None:
    # About its mean (4, 1, 1) is (2, -1, -1).
    expected = math.log(math.exp(2) + 2 * math.exp(-1))
    assert score(build("energy"), 4.0, 1.0, 1.0) == pytest.approx(expected, rel=1e-5)


def test_energy_rises_with_confidence() -> None:
    energy = build("energy")
    values = [score(energy, top, 0.0, 0.0) for top in (0.0, 1.0, 4.0, 16.0)]
    assert values == sorted(values)
