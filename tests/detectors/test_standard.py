"""Robust standardisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from detectors.base import DetectorError
from detectors.standard import Standard

CPU = torch.device("cpu")


def test_median_and_interquartile_range_on_the_scale_of_a_normal_distribution() -> None:
    x = torch.randn(4001, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 0.01])
    fitted = Standard.fit(x + 5)
    centre = np.median((x + 5).double().numpy(), axis=0)
    spread = stats.iqr(x.double().numpy(), axis=0, scale="normal")
    assert fitted.centre.numpy() == pytest.approx(centre, rel=1e-5)
    assert fitted.scale.numpy() == pytest.approx(spread, rel=1e-3)


def test_the_scale_is_linear_near_the_centre_and_logarithmic_far_from_it() -> None:
    fitted = Standard(torch.tensor([1.0]), torch.tensor([2.0]))
    found = fitted(torch.tensor([[1.0], [1.2], [-1.0], [2e5 + 1]])).flatten().tolist()
    assert found == pytest.approx([0, math.asinh(0.1), math.asinh(-1), math.asinh(1e5)], rel=1e-5)


def test_outliers_do_not_move_it() -> None:
    x = torch.randn(100, 1, generator=torch.Generator().manual_seed(1))
    spoiled = x.clone()
    spoiled[:5] = 1e6
    clean, found = Standard.fit(x), Standard.fit(spoiled)
    assert (found.centre - clean.centre).abs() < 0.2
    flags = torch.zeros(100, 1)
    flags[:10] = 1
    assert 0.01 < Standard.fit(flags).scale < 1  # its interquartile range is 0


def test_constant_features_have_a_scale_of_their_size() -> None:
    x = torch.stack((torch.full((50,), 500.0), torch.zeros(50), torch.arange(50.0)), dim=1)
    fitted = Standard.fit(x)
    assert fitted.scale[0] == pytest.approx(0.5, rel=0.1)
    assert 0 < fitted.scale[1] < 0.1
    assert torch.isfinite(fitted(x)).all()


def test_no_finite_value_is_without_a_place_and_no_other_has_one() -> None:
    fitted = Standard(torch.zeros(1), torch.full((1,), 1e-30))
    big = fitted(torch.tensor([[3.4e38], [-3.4e38]]))
    assert torch.isfinite(big).all()
    assert big.abs().max() < 15
    for value in (math.nan, math.inf, -math.inf):
        assert fitted(torch.tensor([[value]])).isnan().all()


def test_state_round_trip() -> None:
    fitted = Standard.fit(torch.randn(30, 3, generator=torch.Generator().manual_seed(0)))
    again = Standard.from_state({**fitted.state(), "other": torch.zeros(1)}, CPU)
    assert torch.equal(again.scale, fitted.scale)
    assert torch.equal(again.centre, fitted.centre)


def test_bad_rows_are_refused() -> None:
    for x in (torch.zeros(1, 3), torch.full((5, 3), math.nan)):
        with pytest.raises(DetectorError, match="2 benign rows, all finite"):
            Standard.fit(x)
    with pytest.raises(DetectorError, match="expected centre and scale"):
        Standard.from_state({"centre": torch.zeros(1)}, CPU)
