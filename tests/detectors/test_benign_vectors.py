"""Benign variations of rows: how strong they are, and what they leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detectors.benign import variations

SCALES = torch.tensor([1000.0, 1.0, 0.001])


def rows(count: int = 400) -> Tensor:
    """Three features of very different size, one of whole numbers, one constant."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(count, 3, generator=generator) + 5) * SCALES
    codes = torch.randint(0, 5, (count, 1), generator=generator).float()
    return torch.cat((x, codes, torch.full((count, 1), 0.37)), dim=1)


@pytest.fixture
def groups() -> dict[str, Tensor]:
    return variations(rows(), torch.Generator().manual_seed(1))


def test_the_groups_are_these(groups: dict[str, Tensor]) -> None:
    assert list(groups) == [
        *("clean", "weak_jitter", "strong_jitter", "fine_rounding", "coarse_rounding", "missing")
    ]
    assert torch.equal(groups["clean"], rows())
    assert all(x.shape == rows().shape and x.isfinite().all() for x in groups.values())


@pytest.mark.parametrize(
    ("name", "low", "high"), [("weak_jitter", 0.005, 0.02), ("strong_jitter", 0.025, 0.05)]
)
def test_jitter_is_in_spreads_of_each_feature(
    groups: dict[str, Tensor], name: str, low: float, high: float
) -> None:
    moved = (groups[name] - rows())[:, :3].std(dim=0) / SCALES
    assert ((moved > low) & (moved < high)).all()


def test_codes_are_neither_jittered_nor_rounded(groups: dict[str, Tensor]) -> None:
    for name in ("weak_jitter", "strong_jitter", "fine_rounding", "coarse_rounding"):
        assert torch.equal(groups[name][:, 3], rows()[:, 3])


@pytest.mark.parametrize(("name", "error"), [("fine_rounding", 5e-3), ("coarse_rounding", 5e-2)])
def test_rounding_keeps_so_many_digits(groups: dict[str, Tensor], name: str, error: float) -> None:
    x = rows()[:, :3]
    relative = ((groups[name][:, :3] - x) / x).abs()
    assert error / 20 < relative.max() <= error


def test_one_value_of_five_is_missing(groups: dict[str, Tensor]) -> None:
    changed = groups["missing"] != rows()
    assert (changed.sum(dim=1) <= 1).all()
    median = rows().sort(dim=0).values[200]
    where = changed.nonzero()
    assert (groups["missing"][changed] - median[where[:, 1]]).abs().max() < 1e-3
    assert set(where[:, 1].tolist()) == {0, 1, 2, 3}


def test_more_values_of_long_rows_are_missing() -> None:
    x = torch.randn(50, 100, generator=torch.Generator().manual_seed(3))
    missing = (variations(x, torch.Generator().manual_seed(4))["missing"] != x).sum(dim=1)
    assert missing.min() >= 1
    assert missing.max() == 5


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_rows(count: int) -> None:
    groups = variations(rows(count), torch.Generator().manual_seed(1))
    assert all(x.shape == (count, 5) for x in groups.values())
