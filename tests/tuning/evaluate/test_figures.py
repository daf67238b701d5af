from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from tuning.evaluate.figures import auroc, auroc_row, share, threshold_at


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
