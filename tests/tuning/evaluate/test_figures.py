from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from tuning.evaluate.figures import auroc, auroc_row, share, share_of_bases, threshold_at


def test_a_share_with_its_interval() -> None:
    row = share("tpr", torch.tensor([True] * 7 + [False] * 93))
    low, high = stats.binomtest(7, 100).proportion_ci(0.95, "exact")
    assert row["tpr"] == 0.07
    assert row["tpr_low"] == pytest.approx(low, abs=1e-4)
    assert row["tpr_high"] == pytest.approx(high, abs=1e-4)


def test_a_share_of_nothing_is_not_known() -> None:
    assert share("tpr", torch.zeros(0, dtype=torch.bool)) == {
        "tpr": None,
        "tpr_low": 0.0,
        "tpr_high": 1.0,
    }


def test_the_area_against_the_rank_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    negative = torch.randint(0, 20, (70,), generator=generator).float()
    positive = torch.randint(5, 25, (40,), generator=generator).float()
    expected = stats.mannwhitneyu(positive, negative).statistic / (70 * 40)
    assert auroc(negative, positive) == pytest.approx(expected)
    row = auroc_row(negative, positive)
    assert row["auroc"] == pytest.approx(expected, abs=1e-4)
    assert 0 < float(row["auroc_low"] or 0) < expected < float(row["auroc_high"] or 0) < 1


def test_the_interval_of_the_area_covers_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = 0.5 * (1 + math.erf(1 / 2))  # normal scores one deviation apart
    held = 0
    for _ in range(200):
        negative = torch.randn(60, generator=generator)
        positive = torch.randn(60, generator=generator) + 1
        row = auroc_row(negative, positive)
        held += float(row["auroc_low"] or 0) <= truth <= float(row["auroc_high"] or 0)
    assert 180 <= held <= 198


def test_intervals_of_images_in_variations_cover_as_often_as_they_say() -> None:
    """Variations of an image score alike; taken as independent, intervals are far too narrow."""
    generator = torch.Generator().manual_seed(2)
    truth, rate = 0.5 * (1 + math.erf(1 / 2)), 0.5 * (1 - math.erf(1.5 / math.sqrt(2)))
    area = mean = narrow = 0
    for _ in range(200):
        same = torch.randn(60, 1, generator=generator)
        negative = 0.9**0.5 * same + 0.1**0.5 * torch.randn(60, 6, generator=generator)
        positive = torch.randn(200, generator=generator) + 1
        row = auroc_row(negative, positive) | share_of_bases("fpr", negative > 1.5)
        area += float(row["auroc_low"] or 0) <= truth <= float(row["auroc_high"] or 0)
        mean += float(row["fpr_low"] or 0) <= rate <= float(row["fpr_high"] or 0)
        row = auroc_row(negative.flatten(), positive)
        narrow += float(row["auroc_low"] or 0) <= truth <= float(row["auroc_high"] or 0)
    assert 180 <= area <= 198
    assert 184 <= mean <= 200
    assert narrow < 170


def test_variations_that_are_not_known_are_left_out() -> None:
    negative = torch.tensor([[0.0, math.nan], [1.0, 2.0], [math.nan, math.nan]])
    row = auroc_row(negative, torch.tensor([1.5, 3.0]))
    assert row["auroc"] == pytest.approx(5 / 6, abs=1e-4)


def test_a_mean_over_kinds_of_which_all_or_none_are_flagged() -> None:
    for flagged in (False, True):
        row = share_of_bases("fpr", torch.full((40, 6), flagged))
        assert row == share("fpr", torch.full((40,), flagged))  # 40 images are 40 samples
    assert share_of_bases("fpr", torch.zeros(0, 6, dtype=torch.bool))["fpr"] is None


@pytest.mark.parametrize("count", [0, 1])
def test_one_sample_has_no_area(count: int) -> None:
    assert auroc_row(torch.zeros(5), torch.ones(count))["auroc"] is None
    assert auroc_row(torch.zeros(count), torch.ones(5))["auroc"] is None


@pytest.mark.parametrize(("fpr", "exceed"), [(0.01, 1), (0.05, 5), (0.5, 50)])
def test_a_threshold_is_exceeded_by_that_share(fpr: float, exceed: int) -> None:
    scores = torch.arange(100.0)[torch.randperm(100)]
    assert int((scores > threshold_at(scores, fpr)).sum()) == exceed


def test_too_few_benign_samples_have_no_threshold() -> None:
    assert threshold_at(torch.arange(50.0), 0.01) == math.inf
    assert threshold_at(torch.zeros(0), 0.05) == math.inf
