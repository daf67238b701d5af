from __future__ import annotations

import pytest
import torch
from scipy import stats

from purifiers import Noise, PurifierError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_noise_is_gaussian_of_the_given_sigma() -> None:
    x = torch.full((4, 3, 32, 32), 0.5)
    noise = (Noise(sigma=10).purify(x, seeded(1)) - x) * 255 / 10
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 0.01


def test_samples_get_noise_of_their_own() -> None:
    x = torch.full((2, 1, 8, 8), 0.5)
    first, second = Noise().purify(x, seeded(1))
    assert not torch.equal(first, second)


def test_draws_differ_under_equal_generators_and_are_uncorrelated() -> None:
    x = torch.full((1, 3, 64, 64), 0.5)
    copies = [Noise(draw=draw).purify(x, seeded(3)) - x for draw in range(3)]
    correlations = torch.corrcoef(torch.stack(copies).flatten(1)).fill_diagonal_(0)
    assert correlations.abs().max() < 0.05  # 4.5 sigma of 12288 independent pairs


def test_the_result_stays_in_range() -> None:
    x = torch.zeros(1, 1, 16, 16)
    y = Noise(sigma=200).purify(x, seeded(0))
    assert (y.min(), y.max()) == (0.0, 1.0)


def test_gradients_pass_unchanged() -> None:
    x = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    Noise(sigma=1).purify(x, seeded(0), gradients=True).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))


def test_keys_tell_draws_apart() -> None:
    assert Noise(sigma=2.5).key == "noise(sigma=2.5)"
    assert Noise(sigma=8, draw=2).key == "noise(sigma=8, draw=2)"


@pytest.mark.parametrize("sigma", [0, -1, 256, float("nan"), "8", True])
def test_sigma_out_of_range(sigma: object) -> None:
    with pytest.raises(PurifierError, match="sigma must be"):
        Noise(sigma=sigma)  # type: ignore[arg-type]


@pytest.mark.parametrize("draw", [-1, 1.5, "1", False])
def test_draw_out_of_range(draw: object) -> None:
    with pytest.raises(PurifierError, match="draw must be"):
        Noise(draw=draw)  # type: ignore[arg-type]
