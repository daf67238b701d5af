from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from purifiers import PurifierError, Wavelet

Array = NDArray[np.float64]
EDGE = 8


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def stripes() -> torch.Tensor:
    """A picture of strong edges, (1, 3, 32, 32)."""
    x = torch.full((1, 3, 32, 32), 0.2)
    x[..., 8:20] = 0.8
    x[:, 0, 12:] *= 0.5
    return x


def haar(x: Array) -> tuple[Array, list[Array]]:
    """One level of the plain, decimated Haar transform with halved sums: low, three details."""
    a, b, c, d = x[::2, ::2], x[::2, 1::2], x[1::2, ::2], x[1::2, 1::2]
    return (a + b + c + d) / 4, [(a - b + c - d) / 4, (a + b - c - d) / 4, (a - b - c + d) / 4]


def shrink_shifted(x: Array, threshold: float, shift: tuple[int, int]) -> Array:
    """Soft-threshold the plain transform of a periodic image that starts at `shift`."""
    low, (dx, dy, dxy) = haar(np.roll(x, (-shift[0], -shift[1]), (0, 1)))
    dx, dy, dxy = (np.sign(d) * np.maximum(np.abs(d) - threshold, 0) for d in (dx, dy, dxy))
    y = np.empty_like(x)
    y[::2, ::2], y[::2, 1::2] = low + dx + dy + dxy, low - dx + dy - dxy
    y[1::2, ::2], y[1::2, 1::2] = low + dx - dy - dxy, low - dx - dy + dxy
    return np.roll(y, shift, (0, 1))


def test_one_level_is_the_mean_over_shifts_of_the_plain_transform() -> None:
    # A sine along the rows: of the details, only the horizontal ones hold anything.
    row = (0.5 + 0.2 * np.sin(np.arange(64) / 2)).astype(np.float32)
    x = np.tile(row, (64, 1))
    ours = Wavelet(sigma=8, levels=1).purify(torch.from_numpy(x)[None, None])[0, 0].numpy()
    energy = np.mean((np.diff(np.pad(row, 1, mode="edge")) / 2) ** 2)
    noise = (8 / 255 / 2) ** 2
    threshold = float(noise / np.sqrt(energy - noise))
    assert 0.005 < threshold < 0.03  # of up to 0.05: neither nothing nor all
    shifts = itertools.product((0, 1), repeat=2)
    expected = np.mean([shrink_shifted(x.astype(float), threshold, s) for s in shifts], axis=0)
    inside = np.s_[EDGE:-EDGE, EDGE:-EDGE]
    np.testing.assert_allclose(ours[inside], expected[inside], atol=2e-5)


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 9, 14), (1, 2, 32, 5)])
def test_hardly_any_noise_assumed_gives_the_image_back(levels: int, shape: tuple[int, ...]) -> None:
    x = rand(*shape)
    y = Wavelet(sigma=1e-4, chroma=1, levels=levels).purify(x)
    torch.testing.assert_close(y, x, atol=1e-5, rtol=0)


def test_takes_noise_out_and_leaves_edges() -> None:
    clean = stripes()
    generator = torch.Generator().manual_seed(1)
    noisy = (clean + 10 / 255 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    denoised = Wavelet().purify(noisy)
    assert (denoised - clean).square().mean() < 0.5 * (noisy - clean).square().mean()
    assert (Wavelet().purify(clean) - clean).abs().mean() * 255 < 4


def test_colour_noise_goes_further_than_brightness_noise() -> None:
    noise = 8 / 255 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    grey = noise.expand(-1, 3, -1, -1)
    colour = torch.cat((noise, torch.zeros_like(noise), -noise), dim=1) * math.sqrt(3 / 2)
    left = [
        (Wavelet().purify(stripes() + part) - Wavelet().purify(stripes())).norm()
        for part in (grey, colour)
    ]
    assert left[1] < 0.8 * left[0]


def test_stronger_takes_more() -> None:
    x = rand(1, 3, 16, 16)
    changes = [(Wavelet(sigma=s).purify(x) - x).norm().item() for s in (5, 10, 30)]
    assert changes == sorted(changes)


def test_gradients_are_those_of_differences() -> None:
    x = rand(1, 3, 4, 4).double().requires_grad_()
    purifier = Wavelet(sigma=30, levels=2)

    def denoised(image: torch.Tensor) -> torch.Tensor:
        return purifier.purify(0.3 + 0.4 * image, gradients=True)

    assert torch.autograd.gradcheck(denoised, x, eps=1e-6, atol=1e-5)


def test_key() -> None:
    assert Wavelet(sigma=8).key == "wavelet(sigma=8, chroma=3, levels=3)"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"sigma": 0}, "sigma must be"),
        ({"sigma": float("nan")}, "sigma must be"),
        ({"sigma": True}, "sigma must be"),
        ({"chroma": 0.5}, "chroma must be"),
        ({"chroma": "3"}, "chroma must be"),
        ({"levels": 0}, "levels must be"),
        ({"levels": 2.5}, "levels must be"),
    ],
)
def test_out_of_range(params: dict[str, float], words: str) -> None:
    with pytest.raises(PurifierError, match=words):
        Wavelet(**params)  # type: ignore[arg-type]
