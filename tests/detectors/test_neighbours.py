from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import cdist

from detectors.neighbours import spread, squared_distances

CPU = torch.device("cpu")


def test_distances_against_scipy() -> None:
    generator = torch.Generator().manual_seed(1)
    x = 100 + torch.randn(7, 5, generator=generator)
    reference = 100 + torch.randn(9, 5, generator=generator)
    expected = cdist(x.double().numpy(), reference.double().numpy(), "sqeuclidean")
    np.testing.assert_allclose(squared_distances(x, reference).numpy(), expected, rtol=1e-3)


def test_a_sample_is_at_distance_zero_from_itself_and_has_a_gradient() -> None:
    x = torch.tensor([[1.0, 2], [3, 4]], requires_grad=True)
    squares = squared_distances(x, x.detach())
    assert squares.diagonal().abs().max() < 1e-5
    (gradient,) = torch.autograd.grad(squares.sum(), x)
    assert bool(torch.isfinite(gradient).all())


def test_rows_are_spread_evenly() -> None:
    assert spread(3, 5, CPU).tolist() == [0, 1, 2]
    assert spread(10, 4, CPU).tolist() == [0, 2, 5, 7]
    rows = spread(4400, 4000, CPU)
    assert len(rows.unique()) == 4000
    assert rows[-1] > 4390
