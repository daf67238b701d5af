"""What counts as benign of recorded traffic."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuning.recordings import NAMES, draw, traffic
from tuning.live_scores import Rows, Traffic, rows_of
from tuning.screening import (
    Spacing,
    excessive,
    highest,
    nearly_repeated,
    quota,
    repeated,
    screen,
    unusable,
)

SPACING = Spacing({"clean": draw(300, 5), "noise": draw(300, 6, 1.3)})


def every(recorded: Traffic) -> Rows:
    return np.arange(len(recorded))


@st.composite
def recordings(drawing: st.DrawFn) -> Traffic:
    """Few principals, many equal and near scores, all labels and marks."""
    count = drawing(st.integers(1, 40))
    values = st.one_of(
        st.sampled_from([0.0, 1.0, 1.0 + 1e-9, 2.0, math.nan]), st.floats(0, 10, width=32)
    )
    rows = st.lists(st.tuples(*[values] * len(NAMES)), min_size=count, max_size=count)

    def column(choices: list[Any]) -> list[Any]:
        return drawing(st.lists(st.sampled_from(choices), min_size=count, max_size=count))

    return traffic(
        np.array(drawing(rows), dtype=np.float64),
        principals=column(["a", "b", "c"]),
        labels=column(["", "", "benign", "adversarial"]),
        failed=column([False, False, True]),
        chained=column([False, False, True]),
    )


@given(recordings(), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 3))
def test_labels_are_kept_to_and_the_order_is_nothing(
    recorded: Traffic, share: float, seed: int
) -> None:
    screened = screen(recorded, SPACING, share=share, seed=seed)
    kept = recorded.labels[screened.rows]
    whole = ~np.isnan(recorded.scores).any(axis=1)
    assert "adversarial" not in kept
    assert (kept == "benign").sum() == ((recorded.labels == "benign") & whole).sum()
    assert np.isfinite(recorded.scores[screened.rows]).all()
    left = [len(recorded)]
    for step in screened.steps:
        left.append(step.left)
        assert left[-2] - left[-1] == step.dropped
    assert left[-1] == len(screened.rows)
    # The same samples in another order, ordered again by id as every reader has them.
    shuffled = rows_of(recorded, np.random.default_rng(seed).permutation(len(recorded)))
    again = rows_of(shuffled, np.argsort(shuffled.ids))
    assert screen(again, SPACING, share=share, seed=seed).rows.tolist() == screened.rows.tolist()


def test_what_is_no_evidence_by_itself() -> None:
    scores = draw(7, 1)
    scores[1, 0] = scores[4, 2] = math.nan
    recorded = traffic(
        scores,
        labels=["", "", "adversarial", "benign", "benign", "benign", ""],
        failed=[True, False, False, True, False, False, False],
        chained=[False, False, False, False, False, True, True],
    )
    dropped = {why: np.flatnonzero(bad).tolist() for why, bad in unusable(recorded).items()}
    assert dropped == {
        "labelled adversarial": [2],
        "no verdict": [0],
        "scores of some detectors missing": [1, 4],
        "in a chain of queries, or in quarantine": [6],
    }
    assert screen(recorded, SPACING, share=1).rows.tolist() == [3, 5]


def test_the_scores_of_a_labelled_attack_are_no_evidence_elsewhere() -> None:
    scores = draw(40, 1)
    scores[5] = scores[30]
    labels = [""] * 40
    labels[30] = "adversarial"
    screened = screen(traffic(scores, labels=labels), SPACING)
    assert not {5, 30} & set(screened.rows.tolist())
    assert len(screened.rows) == 38


def test_equal_scores_count_once_whoever_sent_them() -> None:
    scores = draw(6, 1)
    scores[[1, 4]] = scores[0]
    recorded = traffic(scores)
    assert np.flatnonzero(repeated(recorded, every(recorded))).tolist() == [1, 4]
    labelled = traffic(scores, labels=["", "", "", "", "benign", ""])
    assert np.flatnonzero(repeated(labelled, every(labelled))).tolist() == [0, 1]


def test_of_a_search_by_one_principal_one_query_is_left() -> None:
    steps = draw(1, 3) + np.random.default_rng(4).normal(0, 1e-3, (200, len(NAMES)))
    scores = np.concatenate((draw(200, 9), steps))
    one = traffic(scores, principals=["eve"] * 400)
    found = nearly_repeated(one, every(one), SPACING)
    assert found[200:].sum() >= 199
    assert found[:200].mean() <= 0.05
    many = traffic(scores)
    assert not nearly_repeated(many, every(many), SPACING).any()


@pytest.mark.parametrize("count", [50, 500, 4000])
def test_different_benign_samples_are_rarely_near(count: int) -> None:
    recorded = traffic(draw(count, 11), principals=["gateway"] * count)
    assert nearly_repeated(recorded, every(recorded), SPACING).mean() <= 0.04


def test_the_more_samples_the_nearer_is_near() -> None:
    radii = [SPACING.radius(count) for count in (0, 1, 2, 20, 2000, 10**6)]
    assert radii[:2] == [0, 0]
    assert radii[2] > radii[3] > radii[4] > radii[5] > 0


def test_scores_that_never_differ_have_no_near_ones() -> None:
    same = Spacing({"clean": np.ones((40, 3))})
    assert same.radius(100) == 0
    recorded = traffic(draw(50, 1), principals=["a"] * 50)
    assert not nearly_repeated(recorded, every(recorded), same).any()


@given(
    st.dictionaries(st.integers(), st.integers(1, 500), min_size=1, max_size=30),
    st.sampled_from([0.05, 0.1, 0.3, 1.0]),
)
def test_nobody_gives_more_than_the_share(counts: dict[int, int], share: float) -> None:
    named = {str(name): count for name, count in counts.items()}
    most = quota(named, share)
    given_ = [min(count, most) for count in named.values()]
    fair = max(share, 1 / len(given_))
    assert max(given_) <= fair * sum(given_) + 1e-6
    if most < max(named.values()):  # one more would be too many
        more = [min(count, most + 1) for count in named.values()]
        assert max(more) > fair * sum(more) - 1e-6


def test_a_flood_is_thinned_and_who_is_left_is_drawn_by_the_seed() -> None:
    principals = ["eve"] * 600 + [f"p{i}" for i in range(50) for _ in range(8)]
    recorded = traffic(draw(1000, 2), principals=principals)
    kept = []
    for seed in (1, 1, 2):
        left = ~excessive(recorded, every(recorded), share=0.1, seed=seed)
        counts = Counter(recorded.principals[left].tolist())
        assert counts["eve"] == 44  # 44 of 444
        assert counts["p3"] == 8
        kept.append(np.flatnonzero(left).tolist())
    assert kept[0] == kept[1] != kept[2]


def test_the_highest_are_trimmed_but_not_what_is_known_to_be_benign() -> None:
    labels = [""] * 10
    labels[9] = "benign"
    recorded = traffic(draw(10, 1), labels=labels)
    fused = np.array([0, 1, 2, 7, 4, 5, 6, 7, 8, 9], dtype=np.float64)
    rows = every(recorded)
    assert np.flatnonzero(highest(recorded, rows, fused, 2)).tolist() == [3, 8]
    assert highest(recorded, rows, fused, 99).sum() == 9
    assert not highest(recorded, rows, fused, 0).any()


def test_nothing_recorded_is_nothing_left() -> None:
    screened = screen(traffic(np.empty((0, len(NAMES)))), SPACING)
    assert len(screened.rows) == 0
