"""Margin and energy: numbers worked out by hand, and answers given as probabilities."""

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


def test_margin_by_hand() -> None:
    assert score(build("margin"), 3.0, 1.0, 2.0) == pytest.approx(-math.log(1.001), abs=1e-6)
    assert score(build("margin"), 2.0, 2.0) == pytest.approx(-math.log(0.001), rel=1e-4)


def test_margin_is_higher_nearer_the_boundary() -> None:
    margin = build("margin")
    values = [score(margin, gap, 0.0, -5.0) for gap in (9.0, 3.0, 1.0, 0.1, 0.0)]
    assert values == sorted(values)


def test_energy_by_hand() -> None:
    # About its mean (4, 1, 1) is (2, -1, -1).
    expected = math.log(math.exp(2) + 2 * math.exp(-1))
    assert score(build("energy"), 4.0, 1.0, 1.0) == pytest.approx(expected, rel=1e-5)


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
