from __future__ import annotations

import pytest
import torch

from detectors.benign import CLEAN, one_each, variations

GROUPS = {
    "clean",
    "weak_noise",
    "strong_noise",
    "strong_jpeg",
    "weak_jpeg",
    "brighter",
    "darker",
    "more_contrast",
    "less_contrast",
    "blur",
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "shape", [(0, 3, 32, 32), (5, 1, 8, 8), (3, 3, 33, 40), (2, 1, 2, 2), (2, 1, 16, 15)]
)
def test_groups_shapes_and_range(shape: tuple[int, ...]) -> None:
    groups = variations(torch.rand(shape, generator=seeded()), seeded())
    assert set(groups) == (GROUPS | {"shift"} if min(shape[2:]) >= 16 else GROUPS)
    for x in groups.values():
        assert (x.shape, x.dtype) == (shape, torch.float32)
        assert bool(((x >= 0) & (x <= 1)).all())


def test_clean_is_the_input_and_the_rest_fits_eight_bits() -> None:
    x = torch.rand(4, 3, 16, 16, generator=seeded())
    before = x.clone()
    groups = variations(x, seeded())
    assert torch.equal(groups[CLEAN], before)
    for name in GROUPS - {CLEAN}:
        levels = groups[name] * 255
        torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_the_same_seed_gives_the_same_images() -> None:
    x = torch.rand(4, 3, 16, 16, generator=seeded())
    first, second, other = (variations(x, seeded(s)) for s in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in GROUPS)
    assert not torch.equal(first["weak_noise"], other["weak_noise"])


@pytest.mark.parametrize(
    ("name", "low", "high"), [("weak_noise", 0.5, 2.5), ("strong_noise", 2.5, 5.0)]
)
def test_noise_covers_its_range_of_sigmas(name: str, low: float, high: float) -> None:
    x = torch.full((200, 1, 48, 48), 0.5)
    rounding = 1 / 12
    noise = (variations(x, seeded())[name] - x) * 255
    sigmas = (noise.flatten(1).var(1) - rounding).clamp_min(0).sqrt()
    assert low * 0.9 < sigmas.min() < low + 0.15 * (high - low)
    assert high - 0.15 * (high - low) < sigmas.max() < high * 1.1


@pytest.mark.parametrize(("name", "low", "high"), [("brighter", 1.0, 1.2), ("darker", 0.8, 1.0)])
def test_brightness_covers_its_range_of_factors(name: str, low: float, high: float) -> None:
    factors = variations(torch.full((200, 1, 2, 2), 0.8), seeded())[name][:, 0, 0, 0] / 0.8
    assert low - 0.005 <= factors.min() < low + 0.03
    assert high - 0.03 < factors.max() <= high + 0.005


@pytest.mark.parametrize(
    ("name", "low", "high"), [("more_contrast", 1.0, 1.2), ("less_contrast", 0.8, 1.0)]
)
def test_contrast_stretches_about_the_mean(name: str, low: float, high: float) -> None:
    x = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2).repeat(200, 1, 1, 1)  # mean 0.4
    dark, light = variations(x, seeded())[name].flatten(1).T
    torch.testing.assert_close(dark + light, torch.full((200,), 0.8), atol=1.1 / 255, rtol=0)
    stretch = (light - dark) / 0.4
    assert low - 0.02 <= stretch.min() < low + 0.04
    assert high - 0.04 < stretch.max() <= high + 0.02


def test_each_image_is_compressed_on_its_own() -> None:
    x = torch.rand(24, 3, 16, 16, generator=seeded())
    strong = (variations(x, seeded())["strong_jpeg"] - x).abs().flatten(1).mean(1)
    weak = (variations(x, seeded())["weak_jpeg"] - x).abs().flatten(1).mean(1)
    assert bool((strong > 0).all())
    assert bool((weak > 0).all())
    assert weak.mean() < strong.mean()


def test_blur_spreads_a_point_and_keeps_its_energy() -> None:
    x = torch.zeros(100, 1, 9, 9)
    x[:, 0, 4, 4] = 1.0
    blurred = variations(x, seeded())["blur"]
    # With taps 1 and t = exp(-1 / (2 sigma^2)) beside it the centre keeps (1 / (1 + 2t + ...))^2:
    # 0.985 at sigma 0.3 and 0.325 at 0.7.
    centre = blurred[:, 0, 4, 4]
    assert 0.32 < centre.min() < 0.40
    assert 0.93 < centre.max() < 0.99
    torch.testing.assert_close(blurred.sum((1, 2, 3)), torch.ones(100), atol=12 / 255, rtol=0)


@pytest.mark.parametrize(("side", "most"), [(16, 1), (28, 1), (32, 2)])
def test_shifts_move_along_both_axes(side: int, most: int) -> None:
    x = torch.zeros(200, 1, side, side)
    x[:, :, side // 2, side // 2] = 1.0
    moved = variations(x, seeded())["shift"].flatten(1).argmax(1)
    rows, columns = moved // side - side // 2, moved % side - side // 2
    expected = {-most, -1, 1, most}
    assert set(rows.tolist()) == expected
    assert set(columns.tolist()) == expected


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (7, 1, 8, 8), (40, 3, 33, 40)])
def test_one_variation_each(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=seeded())
    before = x.clone()
    varied = one_each(x, seeded(1))
    assert varied.shape == x.shape
    assert torch.equal(x, before)
    assert torch.equal(varied, one_each(x, seeded(1)))
    assert bool(((varied >= 0) & (varied <= 1)).all())


def test_a_quarter_is_left_alone_and_the_rest_differs_in_kind() -> None:
    x = torch.full((2000, 1, 16, 16), 128 / 255)
    x[:, :, 8, 8] = 1.0
    change = (one_each(x, seeded()) - x).flatten(1)
    untouched = (change == 0).all(1).float().mean().item()
    assert 0.22 < untouched < 0.33  # 0.25, and brightness or contrast changed by next to nothing
    kinds = {
        "brighter": (change[:, 0] > 0.02) & (change[:, 0] == change[:, 1]),
        "darker": (change[:, 0] < -0.02) & (change[:, 0] == change[:, 1]),
        "moved or blurred": (change[:, 8 * 16 + 8] < -0.1) & (change[:, 0] == 0),
    }
    assert all(seen.any() for seen in kinds.values())
