"""What a linear autoencoder loses of a row."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from detectors import DetectorError, Evidence
from detectors.vector_autoencoder import VectorAutoencoder
from tests.detectors.test_vector_mahalanobis import share_above_benign
from tests.rows import attacked, evidence, table


def test_the_score_is_that_of_scikit_learns_components() -> None:
    x = table(300, seed=0)
    detector = VectorAutoencoder(share=0.9)
    detector.fit({"clean": Evidence(x)})
    state = detector.state()
    z = np.arcsinh((x - state["centre"]).numpy() / state["scale"].numpy()).astype(np.float64)
    components = PCA(0.9, svd_solver="full").fit(z)
    left = z - components.inverse_transform(components.transform(z))
    error = np.sqrt((left**2).mean(axis=0)) + 1e-2
    expected = np.log(np.log1p((left / error) ** 2).mean(axis=1) + 1e-6)
    assert detector.score(Evidence(x)).numpy() == pytest.approx(expected, abs=1e-3)


def test_sees_features_moved_against_each_other() -> None:
    detector = VectorAutoencoder()
    detector.fit(evidence())
    assert share_above_benign(detector, attacked(200, seed=7)) > 0.9
    assert share_above_benign(detector, table(200, seed=8)) < 0.1


@pytest.mark.parametrize("share", [0, 1, 1.0, 0.0, "half"])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(DetectorError, match="share must be between 0 and 1"):
        VectorAutoencoder(share=share)


def test_few_rows_are_refused() -> None:
    with pytest.raises(DetectorError, match="at least 20 benign rows"):
        VectorAutoencoder().fit({"clean": Evidence(table(19, seed=0))})
