"""Distance from the nearest group's Gaussian."""

from __future__ import annotations

import pytest
import torch

from detectors import DetectorError, Evidence
from detectors.base import Detector
from detectors.benign import variations
from detectors.vector_mahalanobis import VectorMahalanobis
from tests.rows import attacked, evidence, table

CPU = torch.device("cpu")


def fitted() -> VectorMahalanobis:
    detector = VectorMahalanobis()
    detector.fit(evidence())
    return detector


def share_above_benign(detector: Detector, x: torch.Tensor) -> float:
    """Of rows over the 95 % quantile of the worst benign group."""
    benign = variations(table(400, seed=5), torch.Generator().manual_seed(6))
    threshold = max(torch.quantile(detector.score(Evidence(g)), 0.95) for g in benign.values())
    return (detector.score(Evidence(x)) > threshold).float().mean().item()


def test_sees_features_moved_against_each_other() -> None:
    assert share_above_benign(fitted(), attacked(200, seed=7)) > 0.9


def test_does_not_see_what_keeps_to_the_benign_directions() -> None:
    assert share_above_benign(fitted(), table(200, seed=8)) < 0.1


def test_the_nearest_group_explains_a_row() -> None:
    # A group that lies elsewhere is no alarm, once it is known to be benign.
    elsewhere = table(150, seed=3) * 3
    without, within = fitted(), VectorMahalanobis()
    within.fit({**evidence(), "elsewhere": Evidence(elsewhere)})
    fresh = Evidence(table(100, seed=4) * 3)
    assert within.score(fresh).median() < 3 < without.score(fresh).median()


def test_a_score_is_minus_the_log_of_the_benign_share() -> None:
    # On the very rows it was fitted on: a tenth of them lies above log 10.
    detector = VectorMahalanobis()
    detector.fit({"clean": Evidence(table(500, seed=0))})
    scores = detector.score(Evidence(table(500, seed=0)))
    assert (scores > 2.302585).float().mean() == pytest.approx(0.1, abs=0.01)


def test_huge_values_have_a_finite_and_high_score() -> None:
    x = table(3, seed=9)
    x[1, 2] = 3e38
    x[2] = -3e38
    scores = fitted().score(Evidence(x))
    assert torch.isfinite(scores).all()
    assert scores[2] > scores[1] > scores[0]


def test_gradients_reach_the_input() -> None:
    x = attacked(4, seed=1).requires_grad_()
    scores = fitted().score(Evidence(x), gradients=True)
    (slope,) = torch.autograd.grad(scores.sum(), x)
    assert torch.isfinite(slope).all()
    assert (slope.abs().amax(dim=1) > 0).all()


def test_few_rows_are_refused() -> None:
    with pytest.raises(DetectorError, match="at least 20 rows"):
        VectorMahalanobis().fit({"clean": Evidence(table(19, seed=0))})


def test_long_rows_are_fitted_on_their_principal_components() -> None:
    basis = torch.randn(15, 500, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(400, 15, generator=torch.Generator().manual_seed(1))
    detector = VectorMahalanobis()
    detector.fit({"clean": Evidence((hidden @ basis)[:300])})
    assert sum(t.numel() for t in detector.state().values()) < 500_000
    benign = detector.score(Evidence((hidden @ basis)[300:]))
    noise = torch.randn(100, 500, generator=torch.Generator().manual_seed(2))
    moved = detector.score(Evidence((hidden @ basis)[300:] + noise))
    assert (moved > benign.max()).float().mean() > 0.9
