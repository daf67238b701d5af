from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from purifiers import NonLocalMeans, PurifierError

Array = NDArray[np.float64]


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def pixel_by_pixel(plane: Array, h: float, radius: int) -> Array:
    """The definition, in loops."""
    reach = radius + 1
    padded = np.pad(plane, reach, mode="edge")
    result = np.empty_like(plane)
    for row, column in np.ndindex(plane.shape):
        here = padded[row + reach - 1 : row + reach + 2, column + reach - 1 : column + reach + 2]
        weights = values = 0.0
        for down in range(-radius, radius + 1):
            for right in range(-radius, radius + 1):
                y, x = row + reach + down, column + reach + right
                there = padded[y - 1 : y + 2, x - 1 : x + 2]
                weight = np.exp(-np.mean((here - there) ** 2) / h**2)
                weights, values = weights + weight, values + weight * padded[y, x]
        result[row, column] = values / weights
    return result


@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (6, 9)])
def test_equals_the_definition(radius: int, shape: tuple[int, int]) -> None:
    x = rand(1, 2, *shape)
    ours = NonLocalMeans(h=0.3, radius=radius).purify(x)[0].numpy()
    expected = [pixel_by_pixel(plane.double().numpy(), 0.3, radius) for plane in x[0]]
    np.testing.assert_allclose(ours, np.stack(expected), rtol=1e-4)


def test_grey_images_in_colour_are_smoothed_like_brightness() -> None:
    # The brightness plane is sqrt(3) times the grey values, so it forgives as much less.
    x = rand(1, 1, 8, 8)
    in_colour = NonLocalMeans(h=0.3 * 3**0.5).purify(x.expand(-1, 3, -1, -1))
    alone = NonLocalMeans(h=0.3).purify(x)
    torch.testing.assert_close(in_colour, alone.expand(-1, 3, -1, -1), atol=1e-5, rtol=0)


def test_takes_noise_out_and_leaves_edges() -> None:
    clean = torch.full((1, 3, 32, 32), 0.2)
    clean[..., 8:20] = 0.8
    generator = torch.Generator().manual_seed(1)
    noisy = clean + 5 / 255 * torch.randn(clean.shape, generator=generator)
    denoised = NonLocalMeans().purify(noisy)
    assert (denoised - clean).square().mean() < 0.4 * (noisy - clean).square().mean()
    torch.testing.assert_close(NonLocalMeans().purify(clean), clean, atol=1 / 255, rtol=0)


def test_gradients_are_those_of_differences() -> None:
    x = rand(1, 3, 4, 5).double().requires_grad_()

    def averaged(image: torch.Tensor) -> torch.Tensor:
        return NonLocalMeans(h=0.3, radius=1).purify(0.2 + 0.6 * image, gradients=True)

    assert torch.autograd.gradcheck(averaged, x, eps=1e-6, atol=1e-5)


def test_key() -> None:
    assert NonLocalMeans(h=0.1).key == "non_local_means(h=0.1, chroma=2, radius=2)"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"h": 0}, "h must be"),
        ({"h": 2}, "h must be"),
        ({"h": True}, "h must be"),
        ({"chroma": 0.5}, "chroma must be"),
        ({"chroma": "3"}, "chroma must be"),
        ({"radius": 0}, "radius must be"),
        ({"radius": 1.5}, "radius must be"),
    ],
)
def test_out_of_range(params: dict[str, float], words: str) -> None:
    with pytest.raises(PurifierError, match=words):
        NonLocalMeans(**params)  # type: ignore[arg-type]
