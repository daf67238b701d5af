from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detectors.sketch import BANDS, SIZE, STEP, WIDTH, Sketcher
from tests.detectors.test_scenes import picture

KEY = b"0123456789abcdef"


def noise(scale: float, *shape: int, seed: int = 0) -> Tensor:
    """Gaussian noise with this standard deviation, in levels of 1/255."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale / 255


def by_band(difference: Tensor) -> dict[str, float]:
    """The mean squared distance that two sketches tell, in levels, by band."""
    energy = (difference.double() * STEP).square().unflatten(-1, (len(BANDS), WIDTH)).sum(-1)
    return dict(zip(BANDS, energy.reshape(-1, len(BANDS)).mean(0).tolist(), strict=True))


def told(x: Tensor, y: Tensor, keys: int = 200) -> dict[str, float]:
    """The same, on average over many keys."""
    sketchers = [Sketcher(KEY + bytes([number])) for number in range(keys)]
    return by_band(torch.stack([(s(x[None]).int() - s(y[None]).int())[0] for s in sketchers]))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 1, 1), (4, 33, 47), (1, 2, 300)])
def test_every_size_has_a_sketch_of_one_size(shape: tuple[int, ...]) -> None:
    x = torch.rand(5, *shape, generator=torch.Generator().manual_seed(1))
    sketcher = Sketcher(KEY)
    sketches = sketcher(x)
    assert (sketches.shape, sketches.dtype) == ((5, SIZE), torch.int16)
    assert torch.equal(sketches, torch.cat([sketcher(x[i : i + 1]) for i in range(5)]))
    assert torch.equal(sketches, Sketcher(KEY)(x))
    assert sketcher(x[:0]).shape == (0, SIZE)


def test_keys_share_nothing() -> None:
    a, b = (Sketcher(key)(picture()[None])[0] for key in (KEY, b"another" + KEY))
    assert (a == b).sum() < 3


def test_distances_are_those_of_the_images() -> None:
    x = picture()
    for y in (x + noise(2, 3, 32, 32), x.roll(3, 2), x * 0.9):
        y = y.clamp(0, 1)
        found = told(x, y)
        # Low and high are exact means over their grids; the middle has what is between.
        grid = torch.nn.functional.adaptive_avg_pool2d((x - y)[None], 8)
        assert found["low"] == pytest.approx(float((grid * 255).square().mean()), rel=0.2)
        assert sum(found.values()) == pytest.approx(
            float(((x - y) * 255).square().mean()), rel=0.35
        )


def test_bands_tell_what_differs() -> None:
    x = picture()
    brighter = told(x, x + 2 / 255)
    assert brighter["low"] == pytest.approx(4, rel=0.2)
    assert brighter["middle"] + brighter["high"] < 0.01
    grain = told(x, x + noise(2, 3, 32, 32))
    assert grain["high"] > 0.7 * sum(grain.values())


def test_the_middle_of_two_images_has_the_middle_sketch() -> None:
    sketcher = Sketcher(KEY)
    x, y = picture(), picture().flip(2)
    middle = sketcher(((x + y) / 2)[None]).double()
    between = (sketcher(x[None]).double() + sketcher(y[None]).double()) / 2
    assert (middle - between).abs().max() <= 1


def test_a_hundredth_of_a_level_everywhere_is_seen() -> None:
    sketcher, x = Sketcher(KEY), picture()[None]
    pattern = noise(1, 1, 3, 32, 32).sign()
    assert not torch.equal(sketcher(x), sketcher(x + 0.01 * pattern))


def test_what_is_not_finite_counts_as_nothing() -> None:
    sketcher = Sketcher(KEY)
    x = picture().repeat(4, 1, 1, 1)
    zero = x.clone()
    for row, odd in enumerate((torch.nan, torch.inf, -torch.inf)):
        x[row, 0, 3, 3], zero[row, 0, 3, 3] = odd, 0
    assert torch.equal(sketcher(x), sketcher(zero))


def test_inputs_out_of_range_stay_in_range() -> None:
    assert Sketcher(KEY)(torch.full((1, 3, 8, 8), 1e30)).abs().max() == 32767


def test_sizes_are_forgotten_and_drawn_alike_again() -> None:
    sketcher, x = Sketcher(KEY), picture()[None]
    before = sketcher(x)
    for side in range(1, 20):
        sketcher(torch.zeros(1, 3, side, side))
    assert torch.equal(sketcher(x), before)
