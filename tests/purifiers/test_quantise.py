"""Rounding to a step and to significant digits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from purifiers import PurifierError, Quantise


def test_a_step_takes_the_nearest_multiple() -> None:
    x = torch.tensor([[-0.8, 0.2, 0.25, 0.75, 1e9, 0.0]])
    assert Quantise(step=0.5).purify(x).tolist() == [[-1.0, 0.0, 0.0, 1.0, 1e9, 0.0]]


def test_eight_bits_of_a_waveform() -> None:
    x = torch.linspace(-1, 1, 999).view(1, 1, -1)
    y = Quantise(step=1 / 128).purify(x)
    assert len(y.unique()) == 257
    assert (y - x).abs().max() <= 1 / 256


@given(st.integers(-99_999, 99_999), st.integers(-20, 20), st.integers(1, 5))
def test_digits_are_those_a_person_would_keep(mantissa: int, power: int, digits: int) -> None:
    value = torch.tensor([[mantissa * 2.0**power]])
    found = Quantise(digits=digits).purify(value).item()
    assert found == pytest.approx(float(f"{Decimal(value.item()):.{digits - 1}e}"), rel=1e-6)


def test_values_at_the_end_of_the_range_stay_finite() -> None:
    x = torch.tensor([[3.4e38, -1.2e-38, 1e-45, 0.0]])
    y = Quantise(digits=3).purify(x)
    assert torch.isfinite(y).all()
    assert y[0, 3] == 0


@pytest.mark.parametrize("purifier", [Quantise(), Quantise(step=0.1)], ids=repr)
def test_idempotent(purifier: Quantise) -> None:
    x = 30 * torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    once = purifier.purify(x)
    torch.testing.assert_close(purifier.purify(once), once)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"step": 0.1, "digits": 2}, "either step or digits"),
        ({"step": 0}, "step must be > 0"),
        ({"step": float("inf")}, "step must be > 0"),
        ({"step": "x"}, "step must be > 0"),
        ({"digits": 0}, "digits must be 1 to 6"),
        ({"digits": 1.5}, "digits must be 1 to 6"),
    ],
)
def test_parameters_out_of_range(params: dict[str, Any], words: str) -> None:
    with pytest.raises(PurifierError, match=words):
        Quantise(**params)


def test_keys_name_the_parameters() -> None:
    assert Quantise().key == "quantise(digits=2)"
    assert Quantise(step=1 / 128).key == "quantise(step=0.0078125)"
