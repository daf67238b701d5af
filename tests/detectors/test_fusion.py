from __future__ import annotations

import math

import torch

from detectors.fusion import Fusion
from detectors.tails import Tails


def test_length_of_the_tail_scores_by_hand() -> None:
    # Tails that return the score less log 0.95 for any positive score.
    knots = torch.tensor([[0.0, *[1e6] * 4]] * 2)
    slopes = torch.tensor([[1.0, 0, 0, 0, 0]] * 2)
    fusion = Fusion(["a", "b"], Tails(knots, slopes))
    start = -math.log(0.95)
    fused = fusion({"b": torch.tensor([4 - start]), "a": torch.tensor([3 - start])})
    torch.testing.assert_close(fused, torch.tensor([5.0]))


def test_one_strong_score_outweighs_several_ordinary_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    benign = {name: torch.randn(2000, generator=generator) for name in "abc"}
    fusion = Fusion.fit(["a", "b", "c"], [benign])
    usual = {name: torch.tensor([0.0]) for name in "abc"}
    strong = {**usual, "b": torch.tensor([6.0])}
    raised = {name: torch.tensor([1.0]) for name in "abc"}
    assert fusion(strong) > fusion(raised) > fusion(usual)
