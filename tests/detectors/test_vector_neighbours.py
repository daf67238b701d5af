"""Distance to the nearest benign rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from detectors import DetectorError, Evidence
from detectors.vector_neighbours import VectorNeighbours
from tests.detectors.test_vector_mahalanobis import share_above_benign
from tests.rows import attacked, evidence, table


def test_the_distance_is_scikit_learns() -> None:
    detector = VectorNeighbours(k=4)
    detector.fit(evidence(40))
    state = detector.state()
    rows = state["rows"].numpy()
    assert rows.shape == (6 * 40, 12)
    x = table(9, seed=3)
    centred = torch.asinh((x - state["centre"]) / state["scale"])
    own = (centred @ state["weights"]).numpy()
    far = NearestNeighbors(n_neighbors=4, metric="manhattan").fit(rows).kneighbors(own)[0][:, 3]
    expected = np.log(far / 12 + 1e-3)
    assert detector.score(Evidence(x)).numpy() == pytest.approx(expected, rel=1e-4)


def test_sees_features_moved_against_each_other() -> None:
    detector = VectorNeighbours()
    detector.fit(evidence())
    assert share_above_benign(detector, attacked(200, seed=7)) > 0.9
    assert share_above_benign(detector, table(200, seed=8)) < 0.1


def test_sees_rows_between_two_clusters() -> None:
    def clusters(count: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        side = torch.randint(0, 2, (count, 1), generator=generator) * 2 - 1
        return 20.0 * side + torch.randn(count, 2, generator=generator)

    detector = VectorNeighbours()
    detector.fit({"clean": Evidence(clusters(300, 0))})
    between = detector.score(Evidence(torch.zeros(1, 2)))
    assert between > detector.score(Evidence(clusters(200, 1))).max()


def test_a_row_that_is_stored_is_nearest() -> None:
    detector = VectorNeighbours(k=1)
    detector.fit({"clean": Evidence(table(200, seed=0))})
    scores = detector.score(Evidence(table(200, seed=0)))
    assert scores.numpy() == pytest.approx(math.log(1e-3), abs=0.05)


def test_the_number_of_rows_kept_is_bounded() -> None:
    detector = VectorNeighbours(rows=100)
    detector.fit(evidence(150))
    assert len(detector.state()["rows"]) <= 100


@pytest.mark.parametrize(
    ("params", "words"), [({"k": 0}, "k must be 1 to 50"), ({"rows": 5}, "rows must be 100 to")]
)
def test_parameters_out_of_range(params: dict[str, int], words: str) -> None:
    with pytest.raises(DetectorError, match=words):
        VectorNeighbours(**params)


def test_few_rows_are_refused() -> None:
    with pytest.raises(DetectorError, match="at least 3 rows"):
        VectorNeighbours().fit({"clean": Evidence(table(2, seed=0))})
