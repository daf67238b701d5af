"""Benign variations of waveforms: how strong they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from detectors.benign import variations


def waves(count: int = 60, channels: int = 1, length: int = 800) -> Tensor:
    """A low tone each, with a trace of a high one, at its own level."""
    generator = torch.Generator().manual_seed(0)
    level = 0.05 + 0.4 * torch.rand(count, channels, 1, generator=generator)
    t = torch.arange(length)
    return level * (torch.sin(0.1 * t + 7 * level) + 0.05 * torch.sin(3.0 * t))


@pytest.fixture
def groups() -> dict[str, Tensor]:
    return variations(waves(), torch.Generator().manual_seed(1))


def decibels(signal: Tensor, other: Tensor) -> Tensor:
    return 10 * torch.log10(signal.square().mean(dim=(1, 2)) / other.square().mean(dim=(1, 2)))


def test_the_groups_are_these(groups: dict[str, Tensor]) -> None:
    assert list(groups) == [
        *("clean", "weak_noise", "strong_noise", "quieter", "louder", "shift", "low_pass"),
        *("eight_bit", "mu_law"),
    ]
    assert torch.equal(groups["clean"], waves())
    for x in groups.values():
        assert x.shape == waves().shape
        assert x.abs().max() <= 1


@pytest.mark.parametrize(
    ("name", "low", "high"), [("weak_noise", 30, 45), ("strong_noise", 20, 30)]
)
def test_noise_has_the_ratio_to_its_signal(
    groups: dict[str, Tensor], name: str, low: float, high: float
) -> None:
    ratio = decibels(waves(), groups[name] - waves())
    assert low - 0.5 < ratio.min() < low + 2
    assert high - 2 < ratio.max() < high + 0.5


@pytest.mark.parametrize(("name", "low", "high"), [("quieter", -12, 0), ("louder", 0, 6)])
def test_gain(groups: dict[str, Tensor], name: str, low: float, high: float) -> None:
    gain = decibels(groups[name], waves())
    assert low - 0.01 < gain.min() < gain.max() < high + 0.01
    assert gain.max() - gain.min() > 0.8 * (high - low)


def test_a_shift_leaves_silence(groups: dict[str, Tensor]) -> None:
    by = []
    for before, after in zip(waves()[:, 0].numpy(), groups["shift"][:, 0].numpy(), strict=True):
        found = int(np.correlate(after, before, "full").argmax()) - 799
        by.append(found)
        rolled = np.roll(before, found)
        kept = slice(max(found, 0), 800 + min(found, 0))
        assert np.abs(rolled[kept] - after[kept]).max() < 2**-15
        gap = np.ones(800, bool)
        gap[kept] = False
        assert not after[gap].any()
    assert min(by) < -40
    assert max(by) > 40


def test_a_low_pass_takes_high_tones_and_keeps_low_ones(groups: dict[str, Tensor]) -> None:
    def at(x: Tensor, angle: float) -> Tensor:
        spectrum = torch.fft.rfft(x[:, 0, 40:-40] * torch.hann_window(720)).abs()
        return spectrum[:, round(angle / (2 * np.pi) * 720)]

    kept = at(groups["low_pass"], 0.1) / at(waves(), 0.1)
    assert ((kept > 0.95) & (kept < 1.05)).all()
    lost = at(groups["low_pass"], 3.0) / at(waves(), 3.0)
    assert (lost < 0.3).all()


def test_eight_bits(groups: dict[str, Tensor]) -> None:
    assert len(groups["eight_bit"].unique()) <= 257
    assert (groups["eight_bit"] - waves()).abs().max() < 1 / 250


def test_mu_law_is_fine_where_it_is_quiet(groups: dict[str, Tensor]) -> None:
    error = (groups["mu_law"] - waves()).abs()
    assert error[waves().abs() < 0.01].max() < 0.0007
    assert 0.004 < error.max() < 0.012


def test_an_independent_mu_law() -> None:
    x = torch.linspace(-1, 1, 101).view(1, 1, -1)
    found = variations(x, torch.Generator().manual_seed(0))["mu_law"].flatten().numpy()
    packed = np.round(127 * np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256)).flatten().numpy()
    expected = np.sign(packed) * (256.0 ** (np.abs(packed) / 127) - 1) / 255
    assert np.abs(found - expected).max() < 2**-15


@pytest.mark.parametrize("shape", [(0, 1, 100), (1, 2, 100), (2, 1, 5), (2, 1, 1)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.5
    for name, varied in variations(x, torch.Generator().manual_seed(1)).items():
        assert varied.shape == x.shape, name
        assert varied.isfinite().all(), name
