from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import optimize

from purifiers import PurifierError, TotalVariation

Array = NDArray[np.float64]


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def objective(y: Array, x: Array, weight: float) -> float:
    """What is to be minimised, over one plane."""
    down = np.diff(y, axis=0, append=y[-1:])
    right = np.diff(y, axis=1, append=y[:, -1:])
    return float(0.5 * np.sum((y - x) ** 2) + weight * np.sum(np.hypot(down, right)))


def test_a_step_edge_by_hand() -> None:
    # Of a 0/1 step between halves n wide, the weight takes weight / n off either side.
    x = torch.zeros(1, 1, 6, 20)
    x[..., 10:] = 1.0
    y = TotalVariation(weight=0.5, steps=200).purify(x)
    expected = torch.where(x > 0.5, 1 - 0.05, 0.05)
    torch.testing.assert_close(y, expected, atol=1e-3, rtol=0)


def test_finds_the_minimum_that_scipy_finds() -> None:
    x = rand(1, 1, 5, 6)
    ours = TotalVariation(weight=0.1, steps=200).purify(x)[0, 0].double().numpy()
    start = x[0, 0].double().numpy()
    found = optimize.minimize(
        lambda y: objective(y.reshape(5, 6), start, 0.1),
        ours.ravel() + 0.01,
        method="Powell",
        options={"maxiter": 20000, "ftol": 1e-10, "xtol": 1e-8},
    )
    assert objective(ours, start, 0.1) <= found.fun + 1e-4


def test_more_steps_come_closer() -> None:
    x = rand(1, 1, 16, 16)
    plane = x[0, 0].double().numpy()
    reached = [
        objective(TotalVariation(weight=0.1, steps=n).purify(x)[0, 0].double().numpy(), plane, 0.1)
        for n in (2, 10, 100)
    ]
    assert reached == sorted(reached, reverse=True)
    assert reached[1] < 1.02 * reached[2]


def test_the_mean_of_each_channel_stays() -> None:
    x = 0.25 + 0.5 * rand(2, 3, 16, 16)
    y = TotalVariation(weight=0.1).purify(x)
    torch.testing.assert_close(y.mean((2, 3)), x.mean((2, 3)))


def test_takes_noise_out_and_leaves_edges() -> None:
    clean = torch.full((1, 3, 32, 32), 0.2)
    clean[..., 8:20] = 0.8
    generator = torch.Generator().manual_seed(1)
    noisy = clean + 8 / 255 * torch.randn(clean.shape, generator=generator)
    denoised = TotalVariation().purify(noisy)
    assert (denoised - clean).square().mean() < 0.35 * (noisy - clean).square().mean()


def test_gradients_are_those_of_differences() -> None:
    x = rand(1, 3, 5, 4).double().requires_grad_()

    def smoothed(image: torch.Tensor) -> torch.Tensor:
        return TotalVariation(weight=0.05, steps=4).purify(0.3 + 0.4 * image, gradients=True)

    assert torch.autograd.gradcheck(smoothed, x, eps=1e-6, atol=1e-5)


def test_key() -> None:
    assert TotalVariation(weight=0.05).key == "tv(weight=0.05, chroma=3, steps=10)"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"weight": 0}, "weight must be"),
        ({"weight": 1.5}, "weight must be"),
        ({"weight": True}, "weight must be"),
        ({"chroma": 0.5}, "chroma must be"),
        ({"chroma": "3"}, "chroma must be"),
        ({"steps": 0}, "steps must be"),
        ({"steps": 1.5}, "steps must be"),
    ],
)
def test_out_of_range(params: dict[str, float], words: str) -> None:
    with pytest.raises(PurifierError, match=words):
        TotalVariation(**params)  # type: ignore[arg-type]
