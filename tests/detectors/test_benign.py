from __future__ import annotations

import pytest
import torch

from detectors.benign import CLEAN, variations

GROUPS = {
    "clean",
    "noise2",
    "noise4",
    "jpeg75",
    "jpeg90",
    "brighter",
    "darker",
    "more_contrast",
    "less_contrast",
    "blur",
    "shift",
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (5, 1, 8, 8), (3, 3, 33, 40), (2, 1, 2, 2)])
def test_groups_shapes_and_range(shape: tuple[int, ...]) -> None:
    groups = variations(torch.rand(shape, generator=seeded()), seeded())
    assert set(groups) == GROUPS
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
    assert not torch.equal(first["noise2"], other["noise2"])


@pytest.mark.parametrize(("name", "sigma"), [("noise2", 2.0), ("noise4", 4.0)])
def test_noise_has_its_sigma(name: str, sigma: float) -> None:
    x = torch.full((4, 3, 64, 64), 0.5)
    noise = (variations(x, seeded())[name] - x) * 255
    rounding = 1 / 12
    assert noise.std().item() == pytest.approx((sigma**2 + rounding) ** 0.5, rel=0.03)


def test_photometric_changes_by_hand() -> None:
    x = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2)  # mean 0.4
    groups = variations(x, seeded())
    expected = {
        "brighter": [0.23, 0.69],
        "darker": [0.17, 0.51],
        "more_contrast": [0.17, 0.63],
        "less_contrast": [0.23, 0.57],
    }
    for name, values in expected.items():
        torch.testing.assert_close(
            groups[name].flatten(), torch.tensor(values), atol=0.51 / 255, rtol=0
        )


def test_blur_spreads_a_point_and_keeps_its_energy() -> None:
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1.0
    blurred = variations(x, seeded())["blur"]
    # exp(-2) on each side: centre 1 / (1 + 2 e^-2 + 2 e^-8) = 0.7865 along each axis.
    assert blurred[0, 0, 4, 4].item() == pytest.approx(0.7865**2, abs=2 / 255)
    assert blurred[0, 0, 4, 5].item() == pytest.approx(0.7865**2 * 0.1353, abs=2 / 255)
    assert blurred.sum().item() == pytest.approx(1.0, abs=10 / 255)


@pytest.mark.parametrize(("side", "most"), [(8, 1), (28, 1), (32, 2)])
def test_shifts_move_along_both_axes(side: int, most: int) -> None:
    x = torch.zeros(200, 1, side, side)
    x[:, :, side // 2, side // 2] = 1.0
    moved = variations(x, seeded())["shift"].flatten(1).argmax(1)
    rows, columns = moved // side - side // 2, moved % side - side // 2
    expected = {-most, -1, 1, most}
    assert set(rows.tolist()) == expected
    assert set(columns.tolist()) == expected
