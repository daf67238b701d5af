"""What margin and energy share: answers given as probabilities, and answers that are unusable."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectors import Detector, DetectorError, Evidence, build

X = torch.zeros(1, 1, 4, 4)


def score(detector: Detector, *logits: float) -> float:
    return detector.score(Evidence(X, torch.tensor([logits]))).item()


@pytest.mark.parametrize("name", ["margin", "energy"])
@given(st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=12))
def test_log_probabilities_score_as_logits(name: str, logits: list[float]) -> None:
    detector = build(name)
    log_probabilities = torch.tensor([logits]).log_softmax(1)
    assert score(detector, *log_probabilities[0].tolist()) == pytest.approx(
        score(detector, *logits), abs=2e-2, rel=1e-3
    )


@pytest.mark.parametrize("name", ["margin", "energy"])
def test_a_probability_rounded_to_zero_is_no_failure(name: str) -> None:
    assert math.isfinite(score(build(name), 0.0, -math.inf, -math.inf))


@pytest.mark.parametrize("name", ["margin", "energy"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_no_clean_score(name: str, bad: float) -> None:
    assert not math.isfinite(score(build(name), 1.0, bad, 0.0))


@pytest.mark.parametrize("name", ["margin", "energy"])
def test_one_class_is_refused(name: str) -> None:
    with pytest.raises(DetectorError, match="K > 1"):
        score(build(name), 1.0)
