from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.base import Evidence
from detectors.benign import variations
from detectors.residual import Residual


def pictures(count: int, channels: int, side: int, seed: int) -> Tensor:
    """Smooth random pictures with edges, on the 8-bit grid, like small photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 6, 6, generator=generator)
    x = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    level = torch.rand(count, 1, 1, 1, generator=generator)
    x = x + 0.3 * (F.interpolate(coarse[:, :1], size=(side, side)) > level)
    x = x + 0.004 * torch.randn(x.shape, generator=generator)
    return (x.clamp(0, 1) * 255).round() / 255


def fitted(channels: int, side: int) -> tuple[Residual, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(9)
    benign = variations(pictures(150, channels, side, 1), generator)
    detector = Residual()
    detector.fit({group: Evidence(x) for group, x in benign.items()})
    held = variations(pictures(150, channels, side, 2), generator)
    return detector, {group: detector.score(Evidence(x)) for group, x in held.items()}


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28)])
def test_sees_sign_noise_but_not_benign_noise(channels: int, side: int) -> None:
    detector, held = fitted(channels, side)
    threshold = max(scores.quantile(0.95).item() for scores in held.values())
    x = pictures(100, channels, side, 3)
    sign = torch.randn(x.shape, generator=torch.Generator().manual_seed(4)).sign()
    attacked = ((x + 12 / 255 * sign).clamp(0, 1) * 255).round() / 255
    assert (detector.score(Evidence(attacked)) > threshold).float().mean() > 0.8
    fresh = variations(x, torch.Generator().manual_seed(5))
    for group, images in fresh.items():
        flagged = (detector.score(Evidence(images)) > threshold).float().mean()
        assert flagged <= 0.12, group


def test_scores_grow_with_the_perturbation() -> None:
    detector, _ = fitted(3, 32)
    x = pictures(50, 3, 32, 6)
    sign = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).sign()
    means = [
        detector.score(Evidence((x + eps / 255 * sign).clamp(0, 1))).mean().item()
        for eps in (8, 16, 32)
    ]
    assert means == sorted(means)


def test_colour_noise_is_seen_where_its_luma_is_silent() -> None:
    detector, held = fitted(3, 32)
    x = pictures(50, 3, 32, 8)
    noise = torch.randn(50, 1, 32, 32, generator=torch.Generator().manual_seed(9)) * 12 / 255
    chroma = torch.cat((noise, torch.zeros_like(noise), -noise), dim=1)  # mean over channels 0
    scores = detector.score(Evidence((x + chroma).clamp(0, 1)))
    assert scores.median() > max(s.quantile(0.95) for s in held.values())


@pytest.mark.data
def test_holds_its_rate_on_photographs(data_dir: Path) -> None:
    from loadtests.cifar import load_images

    x, _ = load_images(data_dir, "test", 900)
    generator = torch.Generator().manual_seed(1)
    fit, calibrate, fresh = (variations(part, generator) for part in x.split(300))
    detector = Residual()
    detector.fit({group: Evidence(images) for group, images in fit.items()})
    thresholds = [detector.score(Evidence(images)).quantile(0.95) for images in calibrate.values()]
    for group, images in fresh.items():
        flagged = (detector.score(Evidence(images)) > max(thresholds)).float().mean()
        assert flagged <= 0.1, group  # 0.05 and four standard errors of 300 against 300
