"""Features of short rows and of long ones."""

from __future__ import annotations

import pytest
import torch

from detectors.base import DetectorError
from detectors.row_features import MOST, RowFeatures
from detectors.standard import Standard
from tests.rows import table

CPU = torch.device("cpu")


def long_rows(count: int, seed: int) -> torch.Tensor:
    """Embeddings of 400 values that hold 20."""
    basis = torch.randn(20, 400, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 20, generator=generator)
    return hidden @ basis + 0.05 * torch.randn(count, 400, generator=generator)


def test_short_rows_are_standardised() -> None:
    x = table(100, seed=0)
    found = RowFeatures.fit({"a": x[:50], "b": x[50:]})
    assert torch.equal(found(x), Standard.fit(x)(x))


def test_long_rows_become_few_features_and_what_is_left() -> None:
    found = RowFeatures.fit({"a": long_rows(600, 0)})
    features = found(long_rows(5, 1))
    assert features.shape == (5, MOST + 1)
    off = long_rows(5, 1) + 0.5 * torch.randn(5, 400, generator=torch.Generator().manual_seed(4))
    assert (found(off)[:, -1] > features[:, -1] + 0.5).all()


@pytest.mark.parametrize("x", [table(60, 0), long_rows(300, 0)], ids=["short", "long"])
def test_state_round_trip(x: torch.Tensor) -> None:
    found = RowFeatures.fit({"a": x})
    assert torch.equal(RowFeatures.from_state(found.state(), CPU)(x), found(x))


def test_a_row_that_is_not_finite_has_no_features() -> None:
    x = long_rows(300, 0)
    found = RowFeatures.fit({"a": x})
    x[1, 7] = float("inf")
    assert found(x[:3])[1].isnan().all()
    assert found(x[:3])[[0, 2]].isfinite().all()


def test_foreign_state_is_refused() -> None:
    with pytest.raises(DetectorError, match="expected"):
        RowFeatures.from_state({"basis": torch.zeros(1)}, CPU)
