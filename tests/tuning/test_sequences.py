"""Benign sequences for a calibration, and what the proxy's memory makes of sequences."""

from __future__ import annotations

import pytest
import torch
from rich.progress import Progress
from torch import Tensor

from detectors.base import DetectorError
from detectors.benign_sequences import FAMILIES
from detectors.calibration import Calibration
from detectors.chains import FEATURES
from detectors.rule import Rule
from tests.detectors.test_chains import binary_search, grainy, mirrored
from tests.images import benign
from tuning.sequences import Replay, Sequences

QUIET = Progress(disable=True)
IMAGES = torch.from_numpy(benign(12, seed=0))
KEY = b"k" * 32


def made(images: Tensor = IMAGES, count: int = 100, seed: int = 0, part: str = "fit") -> Sequences:
    return Sequences(images, count, seed=seed, part=part)


def seen(sequences: Sequences, *, whole: bool = True) -> list[Tensor]:
    """Every sequence as it is replayed."""
    found: list[Tensor] = []

    def look(frames: Tensor) -> Tensor:
        found.append(frames)
        return torch.zeros(len(frames), 1)

    sequences.chains(look, QUIET, whole=whole)
    return found


def calm(x: Tensor) -> Tensor:
    return torch.zeros(len(x))


def column(chains: Tensor, name: str) -> list[float]:
    return [float(value) for value in chains[:, FEATURES.index(name)]]


# -- sequences -------------------------------------------------------------------------------------


def test_there_is_one_for_each_image_and_family() -> None:
    sequences = made()
    assert len(sequences) == 12 * len(FAMILIES)
    assert sequences.groups == tuple(f"sequence_{family}" for family in FAMILIES)
    frames = sequences.frames(QUIET)
    assert tuple(frames) == sequences.groups
    for group in frames.values():
        assert group.shape == IMAGES.shape
        assert bool(((group >= 0) & (group <= 1)).all())
    assert made(count=5).frames(QUIET)["sequence_edits"].shape == (5, 3, 32, 32)


def test_they_are_made_alike_whenever_they_are_asked_for() -> None:
    frames = made().frames(QUIET)
    sequences = made()
    ends = torch.stack([part[-1] for part in seen(sequences, whole=False)])
    assert torch.equal(ends, torch.cat(list(frames.values())))
    for whole, part in zip(seen(sequences), seen(sequences, whole=False), strict=True):
        assert torch.equal(whole[: len(part)], part)
        assert len(part) >= 2


@pytest.mark.parametrize("other", [made(seed=1), made(part="threshold")])
def test_seeds_and_parts_have_sequences_of_their_own(other: Sequences) -> None:
    ours, theirs = made().frames(QUIET), other.frames(QUIET)
    assert not any(torch.equal(ours[group], theirs[group]) for group in ours)


@pytest.mark.parametrize(
    ("side", "longest", "shortest"), [(32, (20, 24), (6, 9)), (160, (15, 20), (6, 9))]
)
def test_large_images_have_shorter_sequences(
    side: int, longest: tuple[int, int], shortest: tuple[int, int]
) -> None:
    images = torch.nn.functional.interpolate(IMAGES[:10], (side, side))
    lengths = [len(frames) for frames in seen(made(images))]
    assert longest[0] <= max(lengths) <= longest[1]
    assert shortest[0] <= min(lengths) <= shortest[1]


def test_the_largest_images_have_the_least_of_frames() -> None:
    images = torch.nn.functional.interpolate(IMAGES[:1], (600, 600))
    assert [len(frames) for frames in seen(made(images))] == [6] * len(FAMILIES)


def test_chains_are_by_group_and_image() -> None:
    sequences = made(count=3)
    every = sequences.chains(Replay(calm, KEY), QUIET, whole=True)
    chosen = sequences.chains(Replay(calm, KEY), QUIET, whole=False)
    assert tuple(every) == tuple(chosen) == sequences.groups
    for group in every:
        assert chosen[group].shape == (3, len(FEATURES))
        rows = {tuple(row) for row in every[group].tolist()}
        assert all(tuple(row) in rows for row in chosen[group].tolist())


@pytest.mark.parametrize("shape", [(4, 32, 32), (3, 7, 32)])
def test_images_that_have_no_sequences(shape: tuple[int, ...]) -> None:
    with pytest.raises(DetectorError, match="cannot be made a sequence"):
        made(torch.zeros(3, *shape)).frames(QUIET)


# -- replay ----------------------------------------------------------------------------------------


def test_a_series_is_a_chain() -> None:
    chains = Replay(calm, KEY)(torch.stack(grainy(9)).clamp(0, 1))
    assert (chains.shape, chains.dtype) == ((9, len(FEATURES)), torch.float32)
    assert column(chains, "length") == [0, *range(2, 10)]
    assert column(chains, "flips") == [0] * 9


def test_every_series_begins_with_an_empty_memory() -> None:
    replay = Replay(calm, KEY)
    frames = torch.stack(grainy(9)).clamp(0, 1)
    assert torch.equal(replay(frames), replay(frames))
    assert torch.equal(Replay(calm)(frames)[:, :2], replay(frames)[:, :2])


def test_unlike_queries_are_no_chain() -> None:
    assert not Replay(calm, KEY)(IMAGES).any()


def test_exact_repeats_change_nothing() -> None:
    frames = torch.stack(grainy(5)).clamp(0, 1)
    repeated = Replay(calm, KEY)(frames.repeat_interleave(2, 0))
    assert torch.equal(repeated[::2], repeated[1::2])
    assert column(repeated[::2], "length") == [0, 2, 3, 4, 5]


def test_searches_are_seen() -> None:
    replay = Replay(calm, KEY)
    assert column(replay(torch.stack(binary_search()).clamp(0, 1)), "halving")[-1] >= 5
    assert column(replay(torch.stack(mirrored()).clamp(0, 1)), "mirrored")[-1] > 1.8


def test_the_trail_of_the_principal_is_known() -> None:
    """Noise that is asked about first, and its mirror images after all of it."""
    x, steps = torch.stack(mirrored(5)), range(1, 11)
    apart = torch.stack(
        [x[0], *(x[i] for i in steps if i % 2), *(x[i] for i in steps if not i % 2)]
    )
    assert column(Replay(calm, KEY)(apart.clamp(0, 1)), "mirrored")[-1] > 1


def test_the_strangest_input_is_remembered() -> None:
    odd = torch.tensor([0.5, 7.0, 1.0, 2.0])
    chains = Replay(lambda x: odd, KEY)(torch.stack(grainy(4)).clamp(0, 1))
    assert column(chains, "strangest") == [0, 7, 7, 7]


def test_nothing_asked_is_nothing_known() -> None:
    assert Replay(calm)(IMAGES[:0]).shape == (0, len(FEATURES))


# -- a score that is 0 for whatever follows on nothing ---------------------------------------------


def benign_scores(chained: Tensor) -> dict[str, dict[str, Tensor]]:
    """Benign scores of two detectors; what follows on other queries has `chained` for history."""
    generator = torch.Generator().manual_seed(0)
    groups = {}
    for group in ("clean", "noise", "sequence_motion", "sequence_edits"):
        scores = torch.randn(600, generator=generator).exp()
        past = chained if group.startswith("sequence") else torch.zeros(600)
        groups[group] = {"history": past[torch.randperm(600, generator=generator)], "srm": scores}
    return groups


def alarming(rule: Rule, **scores: Tensor) -> Tensor:
    fused = rule.score(scores)
    assert bool(torch.isfinite(fused).all())
    assert bool((fused.diff() >= 0).all())
    return fused > rule.threshold.value


@pytest.mark.parametrize("often", [1.0, 0.3, 0.02, 0.0])
def test_scores_of_0_for_single_queries_leave_other_scores_their_say(often: float) -> None:
    """Whether sequences have something to tell always, sometimes, or never."""
    generator = torch.Generator().manual_seed(1)
    chained = torch.rand(600, generator=generator).square()
    chained *= torch.rand(600, generator=generator) < often
    calibration = Calibration.fit(benign_scores(chained))
    alone = calibration.rule([["srm"]], 0.02)
    both = calibration.rule([["srm"], ["srm", "history"]], 0.02)
    rising = torch.linspace(0, 40, 400)
    without, beside = alarming(alone, srm=rising), alarming(both, srm=rising, history=0 * rising)
    assert beside.sum() > 0.75 * without.sum()
    attacks = torch.tensor([1.2, 2.0, 3.0, 5.0, 100.0])
    assert bool(alarming(both, srm=torch.ones(5), history=attacks).all())


@pytest.mark.parametrize("often", [1.0, 0.02, 0.0])
def test_history_alone_has_a_threshold_too(often: float) -> None:
    generator = torch.Generator().manual_seed(1)
    chained = torch.rand(600, generator=generator) * (torch.rand(600, generator=generator) < often)
    rule = Calibration.fit(benign_scores(chained)).rule([["history"]], 0.02)
    found = alarming(rule, history=torch.tensor([0.0, 0.0, 1.2, 2.0, 5.0, 100.0]))
    assert found.tolist() == [False, False, True, True, True, True]
