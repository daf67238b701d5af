from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from detectors import DenoiserResidual, DetectorError, Evidence
from purifiers.denoiser import Denoiser


class Flat(nn.Module):
    """Takes everything out but the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3), keepdim=True).expand_as(x)


def noisy(count: int, strength: float, seed: int) -> Tensor:
    """Grey images under sign noise, of a strength that differs a little from one to the next."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randn(count, 3, 32, 32, generator=generator).sign()
    spread = 0.9 + 0.2 * torch.rand(count, 1, 1, 1, generator=generator)
    return 0.5 + strength / 255 * spread * signs


@pytest.fixture
def detector() -> DenoiserResidual:
    chosen = DenoiserResidual()
    chosen.use(Flat())
    chosen.fit({"clean": Evidence(noisy(200, 2, 1)), "noise": Evidence(noisy(200, 4, 2))})
    return chosen


def test_shares_the_weights_of_the_purifier() -> None:
    assert DenoiserResidual.recipe.name == Denoiser.recipe.name


def test_fitting_needs_the_network() -> None:
    with pytest.raises(DetectorError, match="no weights 'denoiser'"):
        DenoiserResidual().fit({"clean": Evidence(noisy(30, 2, 1))})


def test_the_tail_of_the_overall_residual_by_hand(detector: DenoiserResidual) -> None:
    # 400 benign images, log residuals of two clusters; the first knot is the 5 % quantile, where
    # the score is that of a share of 95 %.
    quiet = detector.score(Evidence(torch.full((1, 3, 32, 32), 0.5)))
    assert quiet.item() == pytest.approx(-math.log(0.95), abs=1e-4)


def test_sees_more_noise_than_any_benign_group_has(detector: DenoiserResidual) -> None:
    benign = detector.score(Evidence(noisy(200, 4, 3)))
    attacked = detector.score(Evidence(noisy(200, 8, 4)))
    assert attacked.min() > benign.max()


def test_less_noise_than_any_group_is_quiet(detector: DenoiserResidual) -> None:
    benign = detector.score(Evidence(noisy(200, 4, 3)))
    assert detector.score(Evidence(noisy(200, 1, 5))).max() < benign.median()


def test_sees_noise_that_is_strong_at_one_spot_only(detector: DenoiserResidual) -> None:
    x = noisy(50, 2, 6)
    x[:, :, 8:16, 8:16] = 0.5 + 0.25 * (x[:, :, 8:16, 8:16] - 0.5).sign()
    assert detector.score(Evidence(x)).min() > detector.score(Evidence(noisy(200, 4, 3))).max()


def test_grey_noise_counts_more_than_colour_noise_of_its_size(detector: DenoiserResidual) -> None:
    colour = noisy(50, 4, 7)
    grey = 0.5 + (colour - 0.5)[:, :1].expand_as(colour)
    assert detector.score(Evidence(grey)).min() > detector.score(Evidence(colour)).max()
