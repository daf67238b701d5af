"""Ordinary near-duplicate traffic: that every kind is what its name says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detectors.base import DetectorError
from detectors.benign_sequences import CALIBRATED, FAMILIES, FLOATS, KINDS, UNSEEN, sequence
from tests.detectors.test_scenes import picture

STILL = {"sensor", "developed_sensor", "jpeg_camera", "resized_camera", "noisy_copies"}
"""One scene, and nothing but noise and coding."""
PHOTOMETRIC = {"lighting_drift", "flicker", "hunting", "sliders", "saturation", "colour_filters"}
MOVING = {
    *("slow_pan", "fast_pan", "noisy_pan", "resized_pan", "hand_shake", "burst", "rotation"),
    *("perspective", "parallax", "motion_blur", "rolling_shutter", "interlaced", "zoom"),
}
LARGE = {"ticker", "borders", "padded_crops"}
"""Black and white take turns over large areas; what stays the same is the rest."""


def eight_bit(x: Tensor) -> Tensor:
    return (x * 255).round() / 255


BASE = eight_bit(picture())


def made(kind: str, length: int = 24, seed: int = 0, x: Tensor = BASE) -> Tensor:
    return sequence(kind, x, length, torch.Generator().manual_seed(seed))


def steps(frames: Tensor) -> Tensor:
    """L2 distance from each frame to the next."""
    return (frames[1:] - frames[:-1]).flatten(1).norm(dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "length"), [((1, 8, 8), 1), ((3, 8, 8), 9), ((3, 33, 40), 30), ((1, 9, 64), 2)]
)
def test_shape_range_and_rounding(kind: str, shape: tuple[int, ...], length: int) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    for seed in range(4):
        frames = made(kind, length, seed, x)
        assert (frames.shape, frames.dtype) == ((length, *shape), torch.float32)
        assert bool(((frames >= 0) & (frames <= 1)).all())
        if kind not in FLOATS:
            assert torch.equal(frames, eight_bit(frames))
    assert torch.equal(x, before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind: str) -> None:
    assert torch.equal(made(kind), made(kind))
    if kind != "canary":
        assert not torch.equal(made(kind), made(kind, seed=1))


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - LARGE))
def test_frames_resemble_each_other_more_than_another_image(kind: str) -> None:
    """Else it would not be the traffic that a detector of near-duplicates stumbles over."""
    other = BASE.flip(0)  # as bright, of other colours
    unlike = (BASE - other).norm()
    nearest = []
    for seed in range(5):
        apart = torch.cdist(*[made(kind, 12, seed).flatten(1)] * 2)
        nearest.append(apart.fill_diagonal_(torch.inf).min())
    assert torch.stack(nearest).median() < 0.5 * unlike


def test_kinds_are_many_and_split_in_two_across_the_families() -> None:
    assert len(KINDS) >= 40
    assert set(CALIBRATED) | set(UNSEEN) == set(KINDS)
    assert not set(CALIBRATED) & set(UNSEEN)
    assert 0.4 < len(CALIBRATED) / len(KINDS) < 0.6
    assert len(FAMILIES) == 4
    assert sorted(kind for kinds in FAMILIES.values() for kind in kinds) == sorted(KINDS)
    for half in (CALIBRATED, UNSEEN):
        assert all(set(half) & set(kinds) for kinds in FAMILIES.values())
    assert set(KINDS) >= FLOATS


def test_what_is_refused() -> None:
    for kind, shape, length in (
        ("no_such_kind", (3, 32, 32), 5),
        ("sensor", (2, 32, 32), 5),
        ("sensor", (3, 7, 32), 5),
        ("sensor", (1, 3, 32, 32), 5),
        ("sensor", (3, 32, 32), 0),
    ):
        with pytest.raises(DetectorError):
            made(kind, length, x=torch.rand(shape))


@pytest.mark.parametrize("kind", sorted(MOVING))
def test_things_move(kind: str) -> None:
    moved = torch.stack([steps(made(kind, seed=seed)).median() for seed in range(5)])
    assert moved.min() > 0
    assert moved.median() > 0.1


@pytest.mark.parametrize("kind", ["slow_pan", "noisy_pan", "hand_shake"])
def test_sharpness_stays(kind: str) -> None:
    for seed in range(5):
        frames = made(kind, seed=seed)[..., 4:-4, 4:-4]
        detail = (frames[..., 2:] - 2 * frames[..., 1:-1] + frames[..., :-2]).square()
        sharpness = detail.mean((1, 2, 3))
        # Another part of the scene is not as rich in detail.
        assert sharpness.max() / sharpness.min() < 2.2


def test_pans_drift_away_and_noise_does_not() -> None:
    def drift(kind: str) -> float:
        """How much further the twelfth frame is from the first than the second is."""
        ratios = []
        for seed in range(9):
            frames = made(kind, 12, seed).flatten(1)
            away = (frames - frames[0]).norm(dim=1)
            ratios.append(float(away[11] / away[1]))
        return sorted(ratios)[4]

    assert drift("slow_pan") > 3
    for kind in ("sensor", "developed_sensor", "resized_camera", "noisy_copies"):
        assert 0.8 < drift(kind) < 1.25


@pytest.mark.parametrize(("kind", "low", "high"), [("sensor", 0.5, 4.0), ("noisy_copies", 0.5, 8)])
def test_noise_covers_its_range_of_sigmas(kind: str, low: float, high: float) -> None:
    grey = torch.full((3, 32, 32), 128 / 255)
    rounding = 1 / 12 if kind not in FLOATS else 0.0
    found = [made(kind, 4, seed, grey).sub(grey).mul(255).var() for seed in range(60)]
    sigmas = (torch.stack(found) - rounding).clamp_min(0).sqrt()
    assert 0.85 * low < sigmas.min() < low + 0.15 * (high - low)
    assert high - 0.15 * (high - low) < sigmas.max() < 1.1 * high


def test_resized_noise_is_below_a_level_and_not_on_levels() -> None:
    grey = torch.full((3, 32, 32), 0.5)
    for seed in range(8):
        frames = made("resized_camera", 6, seed, grey)
        assert (frames - frames.mean(0)).std() * 255 < 3
        assert not torch.equal(frames, eight_bit(frames))


@pytest.mark.parametrize("kind", sorted(PHOTOMETRIC))
def test_light_and_colour_change_and_edges_stay(kind: str) -> None:
    for seed in range(6):
        frames = made(kind, 12, seed).mul(255)
        edge = (frames.mean(1)[:, :, 1:] - frames.mean(1)[:, :, :-1]).flatten(1)
        assert torch.corrcoef(edge)[0].min() > 0.6
        assert steps(frames).max() > 0


def test_only_the_object_moves() -> None:
    """Half of the sequences have no noise; there, most pixels are always the background."""
    still = []
    for seed in range(12):
        frames = made("moving_object", 30, seed)
        assert steps(frames).max() > 0
        still.append(float((frames == BASE).all(1).float().mean()))
    assert 3 <= sum(share > 0.6 for share in still) <= 9


def test_the_clock_ticks_at_its_rate() -> None:
    ticking = 0
    for seed in range(12):
        frames = made("clock", 40, seed)
        changed = (frames[1:] != frames[:-1]).any(1).flatten(1).float().mean(1)
        if (changed > 0.5).any():
            continue  # noisy: everything changes
        ticking += 1
        ticks = changed.nonzero()[:, 0]
        assert len(ticks) >= 3
        assert len(set((ticks[1:] - ticks[:-1]).tolist())) <= 1
        assert changed.max() < 0.2
    assert ticking >= 3


def test_cuts_go_back_and_forth_between_two_views() -> None:
    for seed in range(5):
        flat = made("cuts", 40, seed).flatten(1)
        apart = torch.cdist(flat, flat)
        near = apart < 0.25 * apart.max()
        assert len(near.unique(dim=0)) == 2


def test_codecs_repeat_blocks_and_renew_them_at_key_frames() -> None:
    repeats = []
    for seed in range(10):
        frames = made("codec", 30, seed)
        blocks = (frames[1:] == frames[:-1]).view(29, 3, 4, 8, 4, 8).all(5).all(3).all(1)
        repeats.append(float(blocks.float().mean()))
        assert not blocks.all()
    assert max(repeats) > 0.5
    assert min(repeats) < 0.2


def test_interlaced_rows_belong_to_two_moments() -> None:
    for seed in range(5):
        frames = made("interlaced", 12, seed)

        def roughness(x: Tensor) -> float:
            return float((x[..., 2:-1, :] - (x[..., 1:-2, :] + x[..., 3:, :]) / 2).square().mean())

        assert roughness(frames) > 1.3 * roughness(made("slow_pan", 12, seed))


def test_dropped_frames_repeat_and_skip() -> None:
    repeated = [
        float((steps(made("dropped_frames", 40, seed)) == 0).float().mean()) for seed in range(8)
    ]
    assert 0.1 < sum(repeated) / 8 < 0.4


def test_a_canary_repeats_and_a_counting_one_nearly_does() -> None:
    assert torch.equal(made("canary"), BASE.expand(24, 3, 32, 32))
    for seed in range(8):
        frames = made("counting_canary", 24, seed)
        assert len(frames.flatten(1).unique(dim=0)) == 24
        assert (frames == BASE).all(1).float().mean((1, 2)).min() > 0.75


def test_retries_are_exact_and_few() -> None:
    for seed in range(5):
        frames = made("retries", 24, seed)
        times = torch.diff((steps(frames) > 1e-6).nonzero()[:, 0])
        assert 8 <= len(frames.flatten(1).unique(dim=0)) <= 23
        assert times.max() <= 3


def test_encoders_send_the_original_among_others() -> None:
    frames = torch.cat([made("encoders", 24, seed) for seed in range(4)])
    original = (frames == BASE).flatten(1).all(1).float().mean()
    assert 0.03 < original < 0.4
    assert (frames - BASE).abs().mean() < 0.03


def test_ten_crops_are_five_places_and_their_mirror_images() -> None:
    frames = made("ten_crop", 10)
    torch.testing.assert_close(frames[5:], frames[:5].flip(3))
    assert len(frames.flatten(1).unique(dim=0)) == 10


@pytest.mark.parametrize(
    "kind", ["watermarks", "captions", "stickers", "screen", "ticker", "borders"]
)
def test_what_is_laid_over_leaves_the_rest(kind: str) -> None:
    kept = []
    for seed in range(8):
        frames = made(kind, 12, seed)
        assert steps(frames).max() > 1
        kept.append(float((frames == BASE).all(1).float().mean()))
    assert kind == "borders" or max(kept) > 0.5


def test_qualities_and_blurs_differ_in_detail() -> None:
    for kind in ("qualities", "blurs", "sharpening", "resize_chain"):
        frames = made(kind, 12)
        detail = (frames[..., 1:] - frames[..., :-1]).square().mean((1, 2, 3))
        assert detail.max() > 1.03 * detail.min(), kind
        assert (frames.mean((1, 2, 3)) - BASE.mean()).abs().max() < 0.02
