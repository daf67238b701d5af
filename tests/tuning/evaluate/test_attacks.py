from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tuning.evaluate.adversaries import HopSkipJump, Patch, Smooth, squares
from tuning.evaluate.attacks import ATTACKS, attacked, cached, survive_rounding
from tuning.evaluate.store import Store


class Bright(nn.Module):
    """Class 1 where the mean of an image is over one half."""

    def forward(self, x: Tensor) -> Tensor:
        excess = 20 * (x - 0.5).flatten(1).mean(1)
        return torch.stack((-excess, excess), dim=1)


def images(count: int = 4, level: int = 124, side: int = 16) -> tuple[Tensor, Tensor]:
    return torch.full((count, 3, side, side), level / 255), torch.zeros(count, dtype=torch.int64)


def test_squares_lie_inside_and_differ() -> None:
    mask = squares(torch.zeros(50, 3, 10, 12), 4, seed=1)
    assert mask.shape == (50, 1, 10, 12)
    assert mask.flatten(1).sum(1).eq(16).all()
    assert mask.any(3).sum(2).eq(4).all()
    assert len({tuple(each.flatten().tolist()) for each in mask}) > 20


def test_patch_changes_nothing_outside_its_square() -> None:
    x, y = images(level=100)
    made = Patch(8, steps=10)(Bright(), x, y, 7)
    mask = squares(x, 8, 7).expand_as(x).bool()
    assert made[~mask].equal(x[~mask])
    assert made[mask].mean() > 0.9


def test_hop_skip_jump_starts_and_goes_by_its_seed() -> None:
    x, y = images(level=120, side=8)
    attack = HopSkipJump({"max_iter": 2, "max_eval": 20, "init_eval": 10})
    first, again, other = (attack(Bright(), x, y, seed) for seed in (7, 7, 8))
    assert Bright()(first).argmax(1).eq(1).all()
    assert again.equal(first)
    assert other.ne(first).any()


def test_smooth_has_no_fine_texture() -> None:
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(model[1].weight.shape, generator=generator))
    x = torch.full((2, 3, 32, 32), 0.5)
    delta = Smooth(8 / 255)(model, x, torch.zeros(2, dtype=torch.int64), 7) - x
    assert delta.abs().max() <= 8 / 255 + 1e-6
    power = torch.fft.fft2(delta).abs().square().mean((0, 1))
    high = power[12:21].sum() + power[:12, 12:21].sum() + power[21:, 12:21].sum()
    assert high / power.sum() < 0.02


def test_survivors_of_rounding_cross_the_boundary() -> None:
    x, _ = images()  # 124/255: a rise of 3.6/255 crosses 127.5/255 and rounds to 128
    short = x + 3.4 / 255  # rounds to 127: scaled by 1.05 it does not
    made = survive_rounding(Bright(), x, short)
    assert Bright()(made).argmax(1).eq(1).all()
    assert (made * 255 - 128).abs().max() < 1e-3


def test_finished_attacks_are_read_again(tmp_path: Path) -> None:
    x, y = images()
    model = Bright()
    store = Store(tmp_path)
    first = cached(store, "fgsm8", model, x, y)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    again = cached(store, "fgsm8", model, x, y)
    assert file.stat().st_mtime_ns == written
    assert again.x.equal(first.x)
    assert again.fooled.equal(first.fooled)
    assert first.fooled.all()
    cached(store, "fgsm8", model, x, y, seed=8)
    cached(store, "fgsm8", model, x[:2], y[:2])
    cached(store, "fgsm8", model, x, y, identity="another")
    assert len(list(tmp_path.iterdir())) == 4


def test_every_attack_has_a_family_of_its_own_kind() -> None:
    assert {attack.family for attack in ATTACKS.values()} == {
        "gradient_linf",
        "minimal_l2",
        "block",
        "patch",
        "smooth",
        "query",
    }


@pytest.mark.data
@pytest.mark.parametrize("name", ["fgsm8", "pgd4", "deepfool", "smooth8"])
def test_attacks_fool_the_network(name: str, data_dir: Path) -> None:
    from loadtests.cifar import load_images, load_model

    model = load_model(data_dir)
    x, y = load_images(data_dir, "test", 20)
    right = model(x).argmax(1) == y
    made = attacked(ATTACKS[name], model, x[right][:8], y[right][:8])
    assert made.fooled.float().mean() >= 0.75
    assert (made.x * 255 - (made.x * 255).round()).abs().max() < 1e-4
    if "8" in name or "4" in name:
        assert (made.x - made.clean).abs().max() <= 8 / 255 + 1e-6


@pytest.mark.data
def test_both_networks_agree_on_most_images(data_dir: Path) -> None:
    from loadtests.cifar import load_images, load_model

    x, y = load_images(data_dir, "test", 100)
    for layers in (20, 32):
        assert load_model(data_dir, layers)(x).argmax(1).eq(y).float().mean() > 0.75
