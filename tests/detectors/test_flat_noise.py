from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import fft
from torch import Tensor

from detectors.base import Evidence
from detectors.flat_noise import FlatNoise


def gaussian(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_one_block_by_hand() -> None:
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    energy = fft.dctn(x[0, 0].double().numpy() * 255, norm="ortho") ** 2
    band = np.add.outer(np.arange(8), np.arange(8))
    expected = np.log(np.mean([energy[band == b].mean() for b in (12, 13, 14)]) + 0.5)
    np.testing.assert_allclose(FlatNoise().score(Evidence(x)).numpy(), [expected], rtol=1e-4)


@pytest.mark.parametrize("sigma", [1, 3, 8])
def test_reads_the_noise_beside_strong_texture(sigma: float) -> None:
    x = 0.5 + gaussian(200, 3, 32, 32) * sigma / 255
    x[..., 16:] += 0.3 * gaussian(200, 3, 32, 16, seed=2).sign()
    level = FlatNoise().score(Evidence(x.clamp(0, 1))).exp().mean().item()
    assert level == pytest.approx(sigma**2 + 0.5, rel=0.25)


def test_scores_grow_with_the_noise_and_blur_is_quiet() -> None:
    x = 0.5 + gaussian(50, 3, 32, 32) * 3 / 255
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    levels = [0.5 + (x - 0.5) * gain for gain in (1, 2, 3)]
    medians = [FlatNoise().score(Evidence(y)).median().item() for y in (blurred, *levels)]
    assert medians == sorted(medians)


def test_a_value_that_is_not_finite_shows_wherever_it_is() -> None:
    for place in ((0, 0), (15, 15), (31, 31), (0, 31)):
        x = torch.full((2, 1, 32, 32), 0.5)
        x[1, 0, place[0], place[1]] = float("inf")
        assert FlatNoise().score(Evidence(x)).isfinite().tolist() == [True, False]
