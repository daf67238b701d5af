from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from detectors.differences import cross_difference, differences, dots
from detectors.maps import Maps


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dim", [-1, -2])
def test_differences_equal_numpys(dim: int) -> None:
    planes = noise(2, 3, 9, 8)
    for order, found in enumerate(differences(planes, dim), start=1):
        expected = np.diff(planes.double().numpy(), order, axis=dim)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_cross_difference_has_the_energy_of_the_channels_own() -> None:
    x = noise(2, 3, 7, 6)
    kernel = np.outer([1.0, -2.0, 1.0], [1.0, -2.0, 1.0])
    energy = cross_difference(Maps(x)).square().sum(0)
    for image, found in zip(x.double().numpy(), energy, strict=True):
        own = [ndimage.convolve(channel, kernel, mode="nearest") ** 2 for channel in image]
        np.testing.assert_allclose(found.numpy(), sum(own), rtol=1e-4)


@pytest.mark.parametrize("length", [1, 700, 8192, 20_000])
def test_dots_are_the_same_with_and_without_gradients(length: int) -> None:
    a, b = noise(3, 2, length + 5), noise(3, 2, length + 5, seed=2)
    plain = dots(a[..., 5:], b[..., :-5])
    with torch.inference_mode():
        fast = dots(a[..., 5:], b[..., :-5])
    exact = (a[..., 5:].double() * b[..., :-5].double()).sum(-1)
    torch.testing.assert_close(plain.double(), exact, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(fast.double(), exact, rtol=1e-4, atol=1e-6)
