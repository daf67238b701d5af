"""Which detectors are run when, and that going level by level is the same as knowing it all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detectors import Detector, build
from detectors.calibration import Calibration
from detectors.rule import Cascade, Rule
from proxy.cascade import Stage, Stand, join, levels_of, split, stage_of

USUAL = Cascade(0.6, 0.01)
NAMES = ("a", "b", "c", "d")
LEVELS = (NAMES[:1], NAMES[:2], NAMES)


def scores(count: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 1.5 * torch.randn(count, generator=generator) for name in NAMES}


CALIBRATION = Calibration.fit({"clean": scores(600, 1), "noise": scores(600, 2)})


def rule(*cascades: Cascade) -> Rule:
    return CALIBRATION.rule(LEVELS, 0.02, cascade=cascades)


RULE = rule(USUAL, USUAL)


def parts(*names: str) -> list[Detector]:
    return [build(name, {"models": ["peer"]} if name == "ensemble" else {}) for name in names]


def judged(stand: Stand, drawn: dict[str, Tensor], rows: Sequence[int]) -> Stand:
    """Go on to the end, each level told of the scores of samples in doubt alone."""
    while stand.rows:
        chosen = [rows[row] for row in stand.rows]
        new = [n for n in stand.rule.levels[stand.level] if n not in stand.scores]
        stand, stay = stand.found({name: drawn[name][chosen] for name in new}).settled()
        assert len(stay) == len(stand.rows)
    return stand


# -- what costs what -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        *(("srm", Stage.INPUT), ("vector_autoencoder", Stage.INPUT)),
        *(("margin", Stage.ANSWER), ("entropy", Stage.ANSWER)),
        *(("residual_cnn", Stage.NETWORK), ("denoiser_residual", Stage.NETWORK)),
        *(("surrogate", Stage.NETWORK), ("lid", Stage.NETWORK)),
        *(("jpeg_view", Stage.QUERIES), ("ensemble", Stage.QUERIES), ("strip", Stage.QUERIES)),
    ],
)
def test_the_stage_of_a_detector(name: str, stage: Stage) -> None:
    assert stage_of(parts(name)[0]) is stage


def test_a_level_for_each_cost() -> None:
    given = parts("jpeg_view", "residual_cnn", "margin", "history", "surrogate", "srm")
    levels, stops = levels_of(given, USUAL)
    assert levels == [
        ("srm",),
        ("margin", "srm"),
        ("residual_cnn", "margin", "surrogate", "srm"),
        ("jpeg_view", "residual_cnn", "margin", "history", "surrogate", "srm"),
    ]
    # Before the answer, which comes by itself, nothing is taken for clean.
    assert stops == [Cascade(1.0, USUAL.suspicious), USUAL, USUAL]


@pytest.mark.parametrize(
    ("names", "levels", "stops"),
    [
        (["srm"], [("srm",)], []),
        (["history"], [("history",)], []),
        (["history", "srm"], [("srm",), ("history", "srm")], [USUAL]),
        (["srm", "jpeg_view"], [("srm",), ("srm", "jpeg_view")], [USUAL]),
        (["margin", "surrogate"], [("margin",), ("margin", "surrogate")], [USUAL]),
        (["jpeg_view"], [("jpeg_view",)], []),
    ],
)
def test_levels_that_add_none_are_left_out(
    names: list[str], levels: list[tuple[str, ...]], stops: list[Cascade]
) -> None:
    assert levels_of(parts(*names), USUAL) == (levels, stops)


def test_without_a_cascade_there_is_one_level() -> None:
    assert levels_of(parts("jpeg_view", "srm"), None) == ([("jpeg_view", "srm")], [])


# -- level by level --------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_in_any_split_the_scores_are_those_of_the_whole(seed: int, sizes: list[int]) -> None:
    drawn = scores(sum(sizes), seed)
    expected = RULE.score(drawn)
    at = 0
    for size in sizes:
        rows = range(at, at + size)
        at += size
        stand = judged(Stand.start(RULE, size), drawn, rows)
        assert torch.equal(stand.fused, expected[list(rows)])
        for row, level in zip(rows, stand.reached, strict=True):
            looked = {n for n, each in stand.scores.items() if each[row - rows[0]].isfinite()}
            assert looked == set(RULE.levels[level])


@given(seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_requests_share_a_pass_and_come_apart_again(seed: int, sizes: list[int]) -> None:
    drawn = scores(sum(sizes), seed)
    whole = Stand.start(RULE, sum(sizes)).found({"a": drawn["a"]})
    whole, _ = whole.settled()
    apart = split(whole, sizes)
    again = join(apart)
    assert (again.rows, again.reached, again.level) == (whole.rows, whole.reached, whole.level)
    assert torch.equal(again.scores["a"], whole.scores["a"])
    at = 0
    ends = []
    for size, part in zip(sizes, apart, strict=True):
        ends.append(judged(part, drawn, range(at, at + size)))
        at += size
    assert torch.equal(torch.cat([end.fused for end in ends]), RULE.score(drawn))


def test_the_rate_is_that_of_the_rule_and_most_stop_early() -> None:
    held = {group: CALIBRATION.tensors()[f"held.{group}"] for group in CALIBRATION.groups}
    rates, early = [], []
    for matrix in held.values():
        drawn = dict(zip(CALIBRATION.names, matrix.T, strict=True))
        stand = judged(Stand.start(RULE, len(matrix)), drawn, range(len(matrix)))
        rates.append(float((stand.fused > RULE.threshold.value).float().mean()))
        early.append(sum(level < 2 for level in stand.reached) / len(matrix))
    assert max(rates) == pytest.approx(7 / 400)  # the 8th largest of 400 is the threshold
    assert min(early) > 0.4


def test_clean_1_stops_only_the_suspicious() -> None:
    loud = rule(Cascade(1.0, 0.01), USUAL)
    stand, stay = Stand.start(loud, 3).found({"a": torch.tensor([-9.0, 60.0, 0.3])}).settled()
    assert (stay, stand.rows) == ([0, 2], (0, 2))
    assert stand.fused[1] > loud.threshold.value


def test_no_score_settles_nothing() -> None:
    stand, _ = Stand.start(RULE, 2).found({"a": torch.tensor([math.nan, -9.0])}).settled()
    assert stand.rows == (0,)
    end = judged(stand, {name: torch.zeros(2) for name in NAMES}, range(2))
    assert end.fused.isnan().tolist() == [True, False]


def test_the_same_samples_by_a_rule_for_fewer_detectors() -> None:
    drawn = scores(40, 5)
    fewer = CALIBRATION.rule(LEVELS[:2], 0.02, cascade=[USUAL])
    stand = Stand.start(RULE, 40)
    for name in ("a", "b"):
        chosen = list(stand.rows)
        stand, _ = stand.found({name: drawn[name][chosen]}).settled()
    end = judged(stand.again(fewer), drawn, range(40))
    assert torch.equal(end.fused, fewer.score(drawn))
