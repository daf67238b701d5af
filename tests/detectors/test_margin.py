from __future__ import annotations

import math

import pytest
import torch

from detectors import Detector, Evidence, build

X = torch.zeros(1, 1, 4, 4)


def score(detector: Detector, *logits: float) -> float:
    return detector.score(Evidence(X, torch.tensor([logits]))).item()


def test_margin_by_hand() -> None:
    assert score(build("margin"), 3.0, 1.0, 2.0) == pytest.approx(-math.log(1.001), abs=1e-6)
    assert score(build("margin"), 2.0, 2.0) == pytest.approx(-math.log(0.001), rel=1e-4)


def test_margin_is_higher_nearer_the_boundary() -> None:
    margin = build("margin")
    values = [score(margin, gap, 0.0, -5.0) for gap in (9.0, 3.0, 1.0, 0.1, 0.0)]
    assert values == sorted(values)
