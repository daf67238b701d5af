from __future__ import annotations

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from detectors.base import Evidence
from detectors.high_frequency import HighFrequency
from tests.images import benign


def scores(x: Tensor) -> Tensor:
    return HighFrequency().score(Evidence((x.clamp(0, 1) * 255).round() / 255))


def pictures(count: int = 60) -> Tensor:
    return torch.from_numpy(benign(count, seed=1))


def gaussian(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def test_one_block_by_hand() -> None:
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    energy = fft.dctn(x[0, 0].double().numpy() * 255, norm="ortho") ** 2
    band = np.add.outer(np.arange(8), np.arange(8))
    high = np.mean([energy[band == b].mean() for b in (12, 13, 14)])
    middle = np.mean([energy[band == b].mean() for b in (8, 9, 10)])
    expected = np.log(high / (middle / 4 + 9))  # no chroma, and one block has all the weight
    np.testing.assert_allclose(HighFrequency().score(Evidence(x)).numpy(), [expected], rtol=1e-4)


def test_a_perturbation_stronger_in_luma_than_in_chroma_stands_out_of_any_noise() -> None:
    x = pictures()
    sign = gaussian(60, 1, 32, 32).sign().expand(-1, 3, -1, -1) * 8 / 255
    colour = gaussian(60, 3, 32, 32).sign() * 3 / 255
    attacked = scores(x + sign + colour)
    for sigma in (0, 2, 5, 10):
        quiet = scores(x + gaussian(60, 3, 32, 32) * sigma / 255)
        assert attacked.quantile(0.05) > quiet.max(), sigma


def test_smoother_images_score_lower() -> None:
    x = torch.from_numpy(benign(20, seed=4)) + gaussian(20, 3, 32, 32) * 2 / 255
    smooth = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    assert bool((scores(smooth) < scores(x)).all())


def test_grain_on_grey_images_is_no_attack() -> None:
    grey = pictures().mean(1, keepdim=True).expand(-1, 3, -1, -1)
    grain = scores(grey + gaussian(60, 1, 32, 32) * 5 / 255)
    noisy = scores(pictures() + gaussian(60, 3, 32, 32) * 5 / 255)
    assert grain.max() < noisy.quantile(0.9)


def test_a_black_image_is_finite_and_quiet() -> None:
    black = torch.zeros(1, 3, 32, 32)
    assert bool(scores(black).isfinite().all())
    assert scores(black) < scores(pictures()).min()
