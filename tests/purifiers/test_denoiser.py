from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from purifiers import Denoiser
from purifiers.denoiser import with_noise
from purifiers.learned import Lesson


def test_noise_is_of_three_kinds_within_its_strength() -> None:
    x = torch.full((300, 1, 64, 64), 0.5)
    noise = with_noise(x, 0.03, torch.Generator().manual_seed(0)) - x
    scale = noise.flatten(1).std(dim=1)
    assert 0 < scale.min() < 0.002
    assert 0.028 < scale.max() < 0.031
    # Peak over standard deviation: 1 for signs, sqrt(3) for uniform, about 3.6 of 4096 Gaussians.
    crest = noise.flatten(1).abs().amax(1) / scale
    kinds = (crest < 1.1).sum(), ((crest > 1.6) & (crest < 1.8)).sum(), (crest > 2.8).sum()
    assert all(75 < kind < 125 for kind in kinds)
    uniform = noise[(crest > 1.6) & (crest < 1.8)][0]
    assert uniform.abs().mean() / uniform.std() == pytest.approx(math.sqrt(3) / 2, abs=0.02)


def test_noisy_images_stay_in_range() -> None:
    for level in (0.0, 1.0):
        noisy = with_noise(torch.full((8, 3, 9, 9), level), 0.2, torch.Generator().manual_seed(1))
        assert bool(((noisy >= 0) & (noisy <= 1)).all())


class Zero(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0


def test_the_loss_is_the_distance_from_the_clean_image() -> None:
    x = torch.full((4, 1, 8, 8), 0.25)
    loss = Denoiser.recipe.loss(Zero(), Lesson(x, x), torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(0.25)
