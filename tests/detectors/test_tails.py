from __future__ import annotations

import math

import pytest
import torch

from detectors import DetectorError
from detectors.tails import GroupTails, Tails

CPU = torch.device("cpu")


def exponential(count: int = 20_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return -torch.rand(count, 1, generator=generator).clamp_min(1e-12).log()


def test_an_exponential_score_is_its_own_surprise() -> None:
    # P(S > s) = exp(-s), so -log p = s, inside the data and far beyond it.
    s = torch.tensor([[0.3], [1.0], [2.0], [5.0], [20.0]])
    torch.testing.assert_close(Tails.fit(exponential())(s), s, rtol=0.05, atol=0.05)


def test_knots_map_to_their_shares() -> None:
    scores = torch.arange(1001.0)[:, None]
    out = Tails.fit(scores)(torch.tensor([[50.0], [250.0], [500.0], [750.0], [900.0]]))
    expected = [-math.log(p) for p in (0.95, 0.75, 0.5, 0.25, 0.1)]
    torch.testing.assert_close(out.flatten(), torch.tensor(expected), rtol=0.01, atol=0.01)


def test_never_saturates_and_never_decreases() -> None:
    tails = Tails.fit(exponential(500))
    s = torch.linspace(-5, 500, 2000)[:, None]
    out = tails(s).flatten()
    assert bool((out.diff() >= -1e-4).all())
    assert bool((out[100:].diff() > 0).all())


def test_columns_are_independent() -> None:
    both = torch.cat((exponential(), 10 * exponential() - 3), dim=1)
    s = torch.tensor([[2.0, 17.0]])
    out = Tails.fit(both)(s).flatten()
    torch.testing.assert_close(out[0], out[1], rtol=1e-3, atol=1e-3)


def test_tied_scores_give_finite_surprise() -> None:
    tails = Tails.fit(torch.zeros(100, 2))
    out = tails(torch.tensor([[0.0, 1.0]]))
    assert bool(torch.isfinite(out).all())
    assert out[0, 1] > out[0, 0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so(value: float) -> None:
    out = Tails.fit(exponential(100))(torch.tensor([[value], [0.5]]))
    assert math.isnan(out[0, 0])
    assert math.isfinite(out[1, 0])


def test_state_round_trip_and_refusal() -> None:
    tails = Tails.fit(exponential(100))
    s = torch.linspace(0, 9, 10)[:, None]
    assert torch.equal(Tails.from_state(tails.state(), CPU)(s), tails(s))
    with pytest.raises(DetectorError, match="knots and slopes"):
        Tails.from_state({"knots": torch.zeros(1, 5)}, CPU)


def test_ties_keep_the_order_far_outside() -> None:
    # Most scores are one value, so that inner pieces are nearly vertical.
    scores = torch.cat((torch.full((60, 1), 0.0513), 2 + torch.arange(7.0)[:, None]))
    tails = Tails.fit(scores)
    far = tails(torch.tensor([[0.0513], [9.0], [90.0], [9000.0]])).flatten()
    assert bool((far[1:] > far[:-1]).all())
    assert bool((far >= 0).all())
    both = GroupTails.fit([scores, scores])(torch.tensor([[9.0], [9000.0]]))
    torch.testing.assert_close(both.flatten(), far[[1, 3]])
