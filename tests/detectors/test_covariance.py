"""Deviations and whitening, against regressions done one by one and scipy's square root."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from sklearn.linear_model import LinearRegression

from detectors.covariance import conditional, influence, whitening
from tests.rows import SCALES, table

Z = (table(4000, seed=0) / SCALES)[:, :8]


def test_each_is_the_residual_of_a_regression_on_all_others() -> None:
    # With 4,000 samples the shrinkage is at its least, which a regression does not have: compare
    # with the same covariance, shrunk, through the formula for conditional normal distributions.
    mean, weights = conditional(Z)
    found = ((Z[:5] - mean) @ weights).numpy()
    cov = np.cov(Z.double().numpy().T)
    cov = 0.95 * cov + 0.05 * np.diag(np.diag(cov)) + 1e-3 * np.eye(8)
    centred = (Z[:5] - mean).double().numpy()
    for i in range(8):
        others = [j for j in range(8) if j != i]
        slope = np.linalg.solve(cov[np.ix_(others, others)], cov[others, i])
        left = centred[:, i] - centred[:, others] @ slope
        deviation = math.sqrt(cov[i, i] - cov[i, others] @ slope)
        assert found[:, i] == pytest.approx(left / deviation, rel=1e-3, abs=1e-3)


def test_nearly_a_plain_regression() -> None:
    mean, weights = conditional(Z)
    found = ((Z - mean) @ weights)[:, 0].numpy()
    z = Z.double().numpy()
    left = z[:, 0] - LinearRegression().fit(z[:, 1:], z[:, 0]).predict(z[:, 1:])
    assert np.corrcoef(found, left)[0, 1] > 0.6


def test_few_samples_and_constant_features_have_deviations() -> None:
    z = torch.cat((Z[:6], torch.zeros(6, 1)), dim=1)
    mean, weights = conditional(z)
    assert torch.isfinite((z - mean) @ weights).all()


def test_no_single_feature_decides() -> None:
    deviations = torch.full((3, 10), 0.1)
    deviations[1, 3] = 20.0
    deviations[2] = 3.0
    found = influence(deviations).tolist()
    assert found[1] == pytest.approx((9 * math.log(1.01) + math.log(401)) / 10, rel=1e-4)
    assert found[0] < found[1] < found[2]


def test_whitened_rows_are_scipys() -> None:
    cov = np.cov(Z.double().numpy().T)
    cov = 0.95 * cov + 0.05 * np.diag(np.diag(cov)) + 1e-3 * np.eye(8)
    expected = linalg.inv(linalg.sqrtm(cov))
    assert np.abs(whitening(Z).numpy() - expected).max() < 1e-3
