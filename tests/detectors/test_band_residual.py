"""Energy in the upper bands of waveforms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import signal
from torch import Tensor

from detectors import DetectorError, Evidence
from detectors.band_residual import BandResidual
from detectors.benign import variations
from detectors.tails import Tails


def waves(count: int, seed: int, length: int = 1000) -> Tensor:
    """Low tones with a little noise, (count, 1, length)."""
    generator = torch.Generator().manual_seed(seed)
    level = 0.2 + 0.3 * torch.rand(count, 1, 1, generator=generator)
    pitch = 0.1 + 0.2 * torch.rand(count, 1, 1, generator=generator)
    wave = level * torch.sin(pitch * torch.arange(length))
    return (wave + 0.001 * torch.randn(wave.shape, generator=generator)).clamp(-1, 1)


def fitted() -> BandResidual:
    detector = BandResidual()
    groups = variations(waves(100, seed=0), torch.Generator().manual_seed(0))
    detector.fit({name: Evidence(x) for name, x in groups.items()})
    return detector


def test_the_shares_are_those_of_scipys_spectra() -> None:
    # With knots at 0 and slope 1 from there, the sum of tails is that of the shares themselves.
    detector = BandResidual()
    knots, slopes = torch.full((12, 1), -1e3), torch.ones(12, 1)
    detector.load_state(Tails(knots, slopes).state(), torch.device("cpu"))
    x = waves(1, seed=3, length=1024)
    padded = np.pad(x[0, 0].double().numpy(), 128, mode="edge")
    window = signal.get_window("hann", 256)
    power = np.stack(
        [np.abs(np.fft.rfft(padded[i : i + 256] * window))[1:] ** 2 for i in range(0, 1025, 128)]
    ).mean(axis=0)
    bands = power.reshape(16, 8).sum(axis=1)
    shares = np.log(bands[4:] / (bands.sum() + 256 * 2.0**-30) + 1e-7)
    expected = (shares + 1e3 - math.log(0.95)).sum()
    assert detector.score(Evidence(x)).item() == pytest.approx(expected, abs=0.05)


def test_sees_broad_perturbations_above_the_noise_it_knows() -> None:
    detector = fitted()
    benign = variations(waves(200, seed=1), torch.Generator().manual_seed(1))
    threshold = max(torch.quantile(detector.score(Evidence(g)), 0.95) for g in benign.values())
    signs = torch.randn(100, 1, 1000, generator=torch.Generator().manual_seed(2)).sign()
    loud, faint = waves(100, seed=4) + 0.1 * signs, waves(100, seed=4) + 0.005 * signs
    assert (detector.score(Evidence(loud)) > threshold).all()
    assert (detector.score(Evidence(faint)) > threshold).float().mean() < 0.1


def test_less_is_never_suspicious() -> None:
    detector = fitted()
    quiet = torch.sin(0.2 * torch.arange(1000)).view(1, 1, -1) / 2
    silence = torch.zeros(1, 1, 1000)
    clean = detector.score(Evidence(waves(50, seed=5)))
    assert detector.score(Evidence(quiet)) <= clean.median()
    assert detector.score(Evidence(silence)) <= clean.median()


def test_one_loud_channel_is_enough() -> None:
    detector = fitted()
    signs = torch.randn(1, 1, 1000, generator=torch.Generator().manual_seed(2)).sign()
    clean, noisy = waves(1, seed=6), waves(1, seed=7) + 0.1 * signs
    both = detector.score(Evidence(torch.cat((clean, noisy), dim=1)))
    assert both == pytest.approx(detector.score(Evidence(noisy)), rel=1e-5)


def test_no_part_of_a_wave_is_out_of_sight() -> None:
    detector = fitted()
    clean = detector.score(Evidence(waves(50, seed=5))).max()
    for start in (0, 450, 960):
        x = waves(1, seed=8)
        noise = torch.randn(40, generator=torch.Generator().manual_seed(3)).sign()
        x[0, 0, start : start + 40] += 0.4 * noise
        assert detector.score(Evidence(x)) > clean


@pytest.mark.parametrize("length", [1, 31, 127, 128, 129, 256, 5000])
def test_any_length(length: int) -> None:
    scores = fitted().score(Evidence(waves(3, seed=9, length=length)))
    assert torch.isfinite(scores).all()


def test_gradients_reach_the_input() -> None:
    x = waves(2, seed=1) + 0.05 * torch.randn(
        2, 1, 1000, generator=torch.Generator().manual_seed(0)
    )
    x.requires_grad_()
    detector = fitted()
    detector.score(Evidence(x.detach()))
    (slope,) = torch.autograd.grad(detector.score(Evidence(x), gradients=True).sum(), x)
    assert torch.isfinite(slope).all()
    assert slope.abs().max() > 0


def test_few_waveforms_are_refused() -> None:
    with pytest.raises(DetectorError, match="20 benign waveforms"):
        BandResidual().fit({"clean": Evidence(waves(19, seed=0))})
