from __future__ import annotations

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from detectors.base import Evidence
from detectors.chroma import Chroma
from tests.images import benign


def scores(x: Tensor) -> Tensor:
    return Chroma().score(Evidence((x.clamp(0, 1) * 255).round() / 255))


def gaussian(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def stripes(count: int, strength: float) -> Tensor:
    """Vertical stripes of two pixels in random colours."""
    generator = torch.Generator().manual_seed(3)
    signs = torch.randint(0, 2, (count, 3, 1, 16), generator=generator) * 2 - 1
    return signs.repeat_interleave(2, dim=3) * strength / 255


def test_one_block_by_hand() -> None:
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    red, green, blue = x[0].double().numpy() * 255
    planes = ((red - green) / 2**0.5, (red + green - 2 * blue) / 6**0.5)
    energy = sum(fft.dctn(plane, norm="ortho") ** 2 for plane in planes) / 2
    bands = np.add.outer(np.arange(8), np.arange(8))

    def mean(*chosen: int) -> float:
        return float(np.mean([energy[bands == band].mean() for band in chosen]))

    explained = mean(11, 12, 13, 14) + 0.05 * mean(2, 3) + 2.25
    expected = np.log((mean(5, 6, 7, 8) + 2.25) / explained)  # one block has all the weight
    np.testing.assert_allclose(Chroma().score(Evidence(x)).numpy(), [expected], rtol=1e-4)


def test_stripes_stand_out_of_any_noise() -> None:
    x = 0.5 + 0.3 * (torch.from_numpy(benign(60, seed=1)) - 0.5)  # pale, as photographs are
    attacked = scores(x + stripes(60, 8))
    for sigma in (0, 2, 5):
        quiet = scores(x + gaussian(60, 3, 32, 32) * sigma / 255)
        assert attacked.median() > quiet.quantile(0.99), sigma


def test_without_colour_the_score_is_zero() -> None:
    x = torch.from_numpy(benign(5, seed=2)).mean(1, keepdim=True)
    assert not Chroma().score(Evidence(x)).any()
    grey = scores(x.expand(-1, 3, -1, -1) + stripes(5, 8)[:, :1])
    torch.testing.assert_close(grey, torch.zeros(5), atol=1e-4, rtol=0)
