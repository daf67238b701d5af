from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from purifiers.localise import localise


@pytest.mark.parametrize(("shape", "window"), [((1, 16, 16), 5), ((3, 33, 24), 7), ((3, 9, 30), 3)])
def test_equals_scipy(shape: tuple[int, int, int], window: int) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)).numpy().astype(np.float64)
    second = np.array([1.0, -2.0, 1.0])
    kernel = np.outer(second, second) / 6
    residuals = [ndimage.convolve(channel, kernel, mode="nearest") for channel in x]
    texture = np.log(np.mean(np.square(residuals), axis=0) + (4 / 255) ** 2)
    total = ndimage.uniform_filter(texture, window, mode="constant")
    inside = ndimage.uniform_filter(np.ones_like(texture), window, mode="constant")
    mean = total / inside
    middle = np.sort(mean.ravel())[(mean.size - 1) // 2]
    found = localise(torch.from_numpy(x).float()[None])[0]
    np.testing.assert_allclose(found.numpy(), mean - middle, atol=1e-4)


def test_points_at_the_patch() -> None:
    x = torch.full((1, 3, 32, 32), 0.4)
    x[0, :, 20:28, 3:11] = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(2))
    evidence = localise(x)[0]
    peak = int(evidence.argmax())
    assert abs(peak // 32 - 23.5) <= 2
    assert abs(peak % 32 - 6.5) <= 2
    assert evidence[:8, 24:].abs().max() < 1e-5


def test_an_edge_is_less_than_dense_texture() -> None:
    x = torch.zeros(2, 1, 32, 32)
    corner = torch.arange(32)
    x[0, 0][corner[:, None] + corner < 12] = 1.0  # a jagged black and white edge
    x[1, 0, :8, :8] = torch.rand(8, 8, generator=torch.Generator().manual_seed(3))
    edge, texture = localise(x).amax((1, 2))
    assert texture > edge + 1
