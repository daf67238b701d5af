"""What margin and energy share: answers given as probabilities, and answers that are unusable."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detectors import Detector, DetectorError, Evidence, build
from detectors.answers import ROW_ERROR

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


@pytest.mark.parametrize("name", ["margin", "energy"])
@given(
    seed=st.integers(0, 1000),
    classes=st.sampled_from([2, 3, 10, 100, 1000]),
    scale=st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 30.0, 1e4, 1e10, 3e37]),
    kind=st.sampled_from(["logits", "log-probabilities", "rounded to zero", "whole numbers"]),
)
def test_plain_floats_score_as_tensors(
    name: str, seed: int, classes: int, scale: float, kind: str
) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, scale, classes).astype("f4"))
    if kind == "log-probabilities":
        logits = logits.log_softmax(0)
    if kind == "rounded to zero":
        logits[1::2] = -torch.inf
    if kind == "whole numbers":  # the largest is often there twice
        logits = logits.round()
    row = logits.tolist()
    expected = score(build(name), *row)
    found = build(name).score_row(row)
    assert found is not None
    assert abs(found - expected) <= ROW_ERROR * (1 + abs(found))


@pytest.mark.parametrize("name", ["margin", "energy"])
@pytest.mark.parametrize(
    "row",
    [
        *([1.0, math.nan, 0.0], [math.nan, 1.0], [math.inf, 0.0], [math.inf, -math.inf, 0.0]),
        *([-math.inf, -math.inf], [math.inf, math.inf], [1.0], []),
    ],
)
def test_plain_floats_tell_nothing_of_unusable_answers(name: str, row: list[float]) -> None:
    assert build(name).score_row(row) is None


def test_most_detectors_score_by_tensors_only() -> None:
    assert build("entropy").score_row([1.0, 0.0]) is None
    assert build("srm").score_row([1.0, 0.0]) is None
