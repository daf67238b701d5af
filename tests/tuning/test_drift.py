from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tests.tuning.recordings import draw
from tuning.drift import distance, excesses, p_value, shifts, tail_thresholds


@pytest.mark.parametrize(("first", "second"), [(400, 900), (60, 3000), (50, 50)])
@pytest.mark.parametrize("moved", [0.0, 0.1, 0.3])
def test_the_distance_and_its_chance_are_scipys(first: int, second: int, moved: float) -> None:
    generator = np.random.default_rng(first)
    one, other = generator.normal(size=first), generator.normal(moved, 1.0, second)
    expected = stats.ks_2samp(one, other)
    found = distance(one, other)
    assert found == pytest.approx(expected.statistic)
    assert p_value(found, first, second) == pytest.approx(expected.pvalue, abs=0.05)


def test_ties_are_one_step() -> None:
    assert distance(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 2.0])) == pytest.approx(1 / 3)
    assert distance(np.ones(50), np.ones(70)) == 0
    assert p_value(0, 50, 70) == 1
    assert p_value(1, 50, 70) < 1e-12


def test_each_detector_is_compared_with_the_group_it_is_most_like() -> None:
    groups = {"clean": draw(600, 1), "noise": draw(600, 2, 1.5)}
    live = draw(600, 3)
    live[:, 1] *= 1.5
    energy, margin, _ = shifts(("energy", "margin", "residual"), live, groups)
    assert (energy.group, margin.group) == ("clean", "noise")
    assert energy.p > 0.01 < margin.p
    live[:, 1] += 100
    moved = shifts(("energy", "margin", "residual"), live, groups)[1]
    assert moved.distance == 1
    assert moved.p < 1e-9
    assert moved.median > 10


def test_scores_that_never_differed_can_only_have_moved() -> None:
    flat = {"clean": np.ones((50, 1))}
    (same,) = shifts(("a",), np.ones((50, 1)), flat)
    assert (same.distance, same.median) == (0, 0)
    (lower,) = shifts(("a",), np.zeros((50, 1)), flat)
    assert (lower.distance, lower.median) == (1, -math.inf)


def test_only_more_than_chance_explains_is_an_excess() -> None:
    fused = np.arange(1000) / 1000
    thresholds = {0.01: 0.985, 0.05: 0.9}  # 14 and 99 are above
    (found,) = excesses(fused, thresholds)
    assert (found.rate, found.above, found.samples) == (0.05, 99, 49)
    assert not excesses(fused, {0.01: 2.0})


def test_far_out_a_handful_stands_out() -> None:
    generator = np.random.default_rng(1)
    held = {"clean": generator.exponential(1, 900), "noise": generator.exponential(1.2, 900)}
    supported = {rate: float(np.quantile(held["noise"], 1 - rate)) for rate in (0.02, 0.01, 0.005)}
    live = generator.exponential(1, 2000)
    far = tail_thresholds(supported, held, len(live))
    assert max(far) < 0.005
    assert 0.1 <= min(far) * len(live) < 0.2
    assert sorted(far.values()) == list(far.values())
    assert not excesses(live, supported | far)
    live[:10] = 12.0
    found = max(excesses(live, supported | far), key=lambda excess: excess.samples)
    assert found.rate < 0.005
    assert 8 <= found.samples <= 11


def test_scores_that_never_vary_have_no_tail() -> None:
    assert set(tail_thresholds({0.01: 1.0}, {"clean": np.ones(50)}, 1000).values()) == {1.0}
