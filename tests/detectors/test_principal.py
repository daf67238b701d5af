"""Principal components, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from detectors.base import DetectorError
from detectors.principal import Principal
from tests.rows import SCALES, table

Z = table(300, seed=0) / SCALES
CPU = torch.device("cpu")


def test_the_components_are_scikit_learns() -> None:
    expected = PCA(5).fit(Z.double().numpy())
    found = Principal.fit(Z, most=5)
    assert found.mean.numpy() == pytest.approx(expected.mean_, abs=1e-5)
    along = np.abs((found.basis.numpy() * expected.components_.T).sum(axis=0))
    assert along == pytest.approx(np.ones(5), abs=1e-4)
    left = Z.numpy() - expected.inverse_transform(expected.transform(Z.double().numpy()))
    assert np.abs(found.rest(Z).numpy() - left).max() < 1e-4


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_as_few_as_hold_the_share(share: float) -> None:
    held = PCA().fit(Z.double().numpy()).explained_variance_ratio_.cumsum()
    expected = int(np.searchsorted(held, share)) + 1
    assert Principal.fit(Z, share=share).basis.shape == (12, expected)


def test_the_whole_and_its_parts() -> None:
    found = Principal.fit(Z, most=3)
    again = found.project(Z) @ found.basis.T + found.mean + found.rest(Z)
    torch.testing.assert_close(again, Z, atol=1e-4, rtol=0)


def test_fewer_rows_than_features() -> None:
    assert Principal.fit(Z[:6]).basis.shape == (12, 5)
    constant = Principal.fit(torch.ones(10, 4))
    assert constant.rest(torch.ones(2, 4)).abs().max() < 1e-6


def test_many_rows_are_thinned() -> None:
    many = table(6001, seed=1) / SCALES
    kept = Principal.fit(many[::3], most=4)
    assert torch.equal(Principal.fit(many, most=4).basis, kept.basis)


def test_state_round_trip() -> None:
    found = Principal.fit(Z, most=3)
    again = Principal.from_state({**found.state(), "other": torch.zeros(1)}, CPU)
    assert torch.equal(again.rest(Z), found.rest(Z))
    with pytest.raises(DetectorError, match="expected mean and basis"):
        Principal.from_state({"mean": torch.zeros(1)}, CPU)
