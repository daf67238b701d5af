from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import fft

from detectors.bands import RANGES, Band, at_least, band_energies, flatness, opponent
from detectors.maps import Maps


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_bands_are_diagonals_of_scipys_transform() -> None:
    x = noise(1, 3, 14, 11)
    luma, chroma = band_energies(Maps(x))
    assert luma.shape == chroma.shape == (len(Band), 3, 1, 2)  # rows 0, 3, 6 and columns 0, 3
    pixels = x[0].double().numpy() * 255
    red, green, blue = pixels
    planes = [(red + green + blue) / 3**0.5, (red - green) / 2**0.5]
    planes.append((red + green - 2 * blue) / 6**0.5)
    energies = [fft.dctn(p[3:11, 3:11], norm="ortho") ** 2 for p in planes]  # the fourth block
    for group in Band:
        means = np.zeros(3)
        for band in RANGES[group]:
            members = [(u, band - u) for u in range(8) if 0 <= band - u < 8]
            means += [np.mean([energy[at] for at in members]) for energy in energies]
        means /= len(RANGES[group])
        assert luma[group, 1, 0, 1].item() == pytest.approx(means[0], rel=1e-3)
        assert chroma[group, 1, 0, 1].item() == pytest.approx((means[1] + means[2]) / 2, rel=1e-3)


def test_white_noise_is_as_strong_in_every_band() -> None:
    x = 0.5 + 3 / 255 * torch.randn(200, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for energy in band_energies(Maps(x)):
        torch.testing.assert_close(
            energy.mean((1, 2, 3)), torch.full((len(Band),), 9.0), rtol=0.1, atol=0
        )


def test_every_pixel_is_in_a_block() -> None:
    for height, width in ((8, 8), (28, 28), (33, 47), (65, 70)):
        x = torch.zeros(1, 1, height, width)
        x[..., -1, -1] = float("nan")
        assert bool(band_energies(Maps(x))[0].isnan().any())


def test_one_channel_has_no_chroma() -> None:
    _, chroma = band_energies(Maps(noise(2, 1, 9, 9)))
    assert not chroma.any()


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_opponent_planes_are_orthonormal(channels: int) -> None:
    unit = torch.eye(channels).view(channels, channels, 1, 1)
    matrix = opponent(Maps(unit))[:, :, 0, 0].T
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(channels))
    assert bool((matrix[:, 0] == channels**-0.5).all())


def test_small_images_are_extended_by_their_edges() -> None:
    grown = at_least(torch.tensor([[[[1.0, 2.0]]]]), 3)
    assert grown[0, 0].tolist() == [[1, 2, 2]] * 3


def test_flat_blocks_weigh_more() -> None:
    content = torch.tensor([0, 30.0**2, 90.0**2])
    torch.testing.assert_close(flatness(content), torch.tensor([1.0, 0.5, 0.1]))
