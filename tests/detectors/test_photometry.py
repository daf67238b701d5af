"""Noise, colours and coding of frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detectors.dice import Dice
from detectors.photometry import (
    coded_as_video,
    contrasted,
    developed_noise,
    luma,
    saturated,
    scaled,
    sensor_noise,
    sharpened,
    tinted,
)
from tests.detectors.test_scenes import picture


def dice() -> Dice:
    return Dice(torch.Generator().manual_seed(1))


def colours(count: int = 4, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("noise", [sensor_noise, developed_noise])
def test_noise_has_its_strength_at_mid_grey_and_rises_with_light(noise: object) -> None:
    assert callable(noise)
    levels = torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1, 1).expand(3, 3, 64, 64)
    added = noise(levels, 3 / 255, dice()) - levels
    sigmas = luma(added).std((1, 2, 3)) * 255
    assert sigmas[0] < 0.8 * sigmas[1]
    assert sigmas[2] > 1.1 * sigmas[1]
    each = added.std((1, 2, 3))[1] * 255
    assert 2.8 < each < 4.4


def test_sensor_noise_is_white_and_developed_noise_is_not() -> None:
    grey = torch.full((4, 3, 64, 64), 0.5)

    def neighbours(x: Tensor) -> float:
        d = x - x.mean()
        return float((d[..., 1:] * d[..., :-1]).mean() / d.square().mean())

    assert abs(neighbours(sensor_noise(grey, 0.01, dice()))) < 0.02
    assert neighbours(developed_noise(grey, 0.01, dice())) > 0.3


def test_colours_stretch_about_grey_and_values_about_the_mean() -> None:
    x = colours()
    factors = torch.tensor([0.0, 0.5, 1.0, 2.0])
    changed = saturated(x, factors)
    torch.testing.assert_close(luma(changed), luma(x))
    torch.testing.assert_close(changed[2], x[2])
    assert changed[0].std(0).max() < 1e-6
    spread = contrasted(x, factors).std((1, 2, 3)) / x.std((1, 2, 3))
    torch.testing.assert_close(spread, factors, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(contrasted(x, factors).mean((1, 2, 3)), x.mean((1, 2, 3)))


def test_grey_images_have_no_colour_to_change() -> None:
    x = colours()[:, :1]
    assert torch.equal(luma(x), x)
    torch.testing.assert_close(saturated(x, torch.full((4,), 2.0)), x)
    gains = torch.tensor([[0.5, 2.0, 3.0]]).expand(4, 3)
    torch.testing.assert_close(tinted(x, gains), 2 * x)
    torch.testing.assert_close(tinted(colours(), gains)[:, 2], 3 * colours()[:, 2])


def test_sharpening_enlarges_steps_only() -> None:
    x = torch.zeros(2, 1, 16, 16)
    x[..., 8:] = 0.5
    sharp = sharpened(x, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(sharp[0], x[0])
    assert sharp[1].max() > 0.55
    torch.testing.assert_close(sharp[1, :, :, :4], x[1, :, :, :4])


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
def test_making_smaller_keeps_the_mean(mode: str) -> None:
    x = colours()
    small = scaled(x, 16, 16, mode)
    assert small.shape == (4, 3, 16, 16)
    assert (small.mean() - x.mean()).abs() < 0.005
    assert small.std() < 0.6 * x.std()


def test_between_key_frames_what_stands_still_is_repeated_exactly() -> None:
    x = picture(3, 40, 40).repeat(12, 1, 1, 1)
    x[:, :, :8, :8] = torch.linspace(0, 1, 12).view(-1, 1, 1, 1)
    seen = coded_as_video(x, every=6, key_quality=60, quality=60)
    assert seen.shape == x.shape
    same = (seen[1:, :, 16:, 16:] == seen[:-1, :, 16:, 16:]).flatten(1).all(1).tolist()
    # What a key frame left out, the next frames may still add.
    assert all(same[t - 1] for t in (3, 4, 5, 9, 10, 11))
    assert not same[0]
    assert not same[6 - 1]
    assert bool((seen[1:, :, :8, :8] != seen[:-1, :, :8, :8]).flatten(1).any(1).all())
    assert (seen - x).abs().mean() < 0.03


def test_a_change_of_nothing_is_nothing() -> None:
    grey = torch.full((6, 3, 16, 16), 128 / 255)
    seen = coded_as_video(grey, every=6, key_quality=75, quality=50)
    assert all(torch.equal(frame, seen[0]) for frame in seen)


def test_video_coding_takes_noise_away_and_does_not_drift() -> None:
    still = scaled(colours(1), 32, 32, "bicubic").mul(0.5).add(0.25).repeat(20, 1, 1, 1)
    noisy = sensor_noise(still, 1 / 255, dice())
    seen = coded_as_video(noisy, every=20, key_quality=85, quality=50)
    before = (noisy[1:] - noisy[:-1]).abs().mean()
    assert (seen[1:] - seen[:-1]).abs().mean() < 0.3 * before
    assert (seen[-1] - still[-1]).abs().mean() < 1.5 * (seen[0] - still[0]).abs().mean()
