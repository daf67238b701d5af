from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detectors.fusion import Fusion, Learner, features


def benign(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator)


def test_one_strong_score_outweighs_several_ordinary_ones() -> None:
    fusion = Fusion(["a", "b", "c"], {"clean": benign(2000)})
    usual = {name: torch.tensor([0.0]) for name in "abc"}
    strong = {**usual, "b": torch.tensor([6.0])}
    raised = {name: torch.tensor([1.0]) for name in "abc"}
    assert fusion(strong) > fusion(raised) > fusion(usual)


def test_what_is_common_in_one_group_is_no_evidence() -> None:
    noisy = benign(2000, 1) + torch.tensor([5.0, 0.0, 0.0])
    alone = Fusion(["a", "b", "c"], {"clean": benign(2000)})
    both = Fusion(["a", "b", "c"], {"clean": benign(2000), "noise": noisy})
    asked = {"a": torch.tensor([5.0]), "b": torch.tensor([0.0]), "c": torch.tensor([0.0])}
    assert alone(asked) > 8
    assert both(asked) < 2


def test_the_fused_score_is_about_the_log_of_the_benign_share() -> None:
    fusion = Fusion(["a", "b", "c"], {"clean": benign(4000)})
    fresh = fusion.of_matrix(benign(20_000, 5))
    for share in (0.5, 0.1, 0.01):
        above = (fresh > -torch.tensor(share).log()).float().mean().item()
        assert above == pytest.approx(share, rel=0.25)


def test_a_weight_of_zero_leaves_a_detector_out() -> None:
    weights = torch.tensor([1.0, 0.0, 1.0])
    fusion = Fusion(["a", "b", "c"], {"clean": benign(500)}, weights=weights)
    scores = {name: torch.tensor([0.3]) for name in "abc"}
    assert torch.equal(fusion(scores), fusion({**scores, "b": torch.tensor([9.0])}))
    assert fusion({**scores, "c": torch.tensor([9.0])}) > fusion(scores)


def test_a_score_however_large_has_a_place_on_the_scale() -> None:
    learner = Learner(("a", "b", "c"), torch.ones(6))
    for fusion in (
        Fusion(["a", "b", "c"], {"clean": benign(500)}, learner=learner),
        Fusion(["a", "b", "c"], {"clean": benign(500)}, weights=torch.tensor([1.5, 0.0, 1.0])),
        Fusion(["a", "b", "c"], {"clean": torch.zeros(500, 3)}),
    ):
        for far in (1e6, 1e20, 3e38):
            found = fusion.of_matrix(torch.tensor([[far, far, 0.0], [0.0, 0.0, 0.0]]))
            assert torch.isfinite(found).all()
            assert found[0] > 100 * found[1]
        for broken in (torch.nan, torch.inf, -torch.inf):
            assert fusion.of_matrix(torch.tensor([[0.0, broken, 0.0]])).isnan()


def test_a_learner_by_hand() -> None:
    tails = torch.tensor([[4.0, 9.0], [0.0, 100.0]])
    expected = torch.tensor([[4.0, 9.0, 2.0, 3.0], [0.0, 20.0, 0.0, 20.0**0.5]])
    torch.testing.assert_close(features(tails), expected)
    learner = Learner(("a", "b"), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.testing.assert_close(learner(tails[:1]), torch.tensor([4 + 18 + 6 + 12.0]))


def quantised(count: int, seed: int) -> Tensor:
    """Benign scores of which many tie, and one column in which all do."""
    return (benign(count, seed) * torch.tensor([1.0, 2.0, 0.0])).round() - 4.60518


FUSIONS = (
    Fusion(["a", "b", "c"], {"clean": benign(500), "noise": benign(500, 1) * 3 + 1}),
    Fusion(["a", "b", "c"], {"clean": quantised(500, 2), "noise": quantised(500, 3) + 1e-6}),
    Fusion(
        ["a", "b", "c"],
        {"clean": benign(500, 4), "noise": quantised(500, 5)},
        weights=torch.tensor([1.3, 0.0, 0.6]),
    ),
)


@given(
    fusion=st.sampled_from(FUSIONS),
    row=st.lists(
        st.one_of(st.floats(-9, 30, width=32), st.floats(width=32, allow_nan=False)),
        min_size=3,
        max_size=3,
    ),
    near=st.sampled_from([None, 0, 1, 17]),
    error=st.sampled_from([0.0, 1e-6, 1e-2]),
)
def test_bounds_hold_what_tensors_give(
    fusion: Fusion, row: list[float], near: int | None, error: float
) -> None:
    row = row if near is None else quantised(500, 2)[near].tolist()  # on a knot, or beside one
    exact = fusion.of_matrix(torch.tensor([row])).item()
    around = [error * (1 + abs(each)) for each in row]
    ends = [(each - off, each + off) for each, off in zip(row, around, strict=True)]
    found = fusion.bounds(dict(zip("abc", ends, strict=True)))
    if found is None:
        assert exact != exact
        return
    low, high = found
    assert low <= exact <= high
    if not error and fusion is FUSIONS[0]:  # elsewhere the last digit of a sum decides
        assert high - low <= 1e-4 * high


def test_bounds_are_known_of_finite_scores_and_without_a_learner() -> None:
    usual = dict.fromkeys("abc", (0.0, 0.0))
    for broken in (torch.nan, torch.inf, -torch.inf):
        assert FUSIONS[0].bounds({**usual, "b": (broken, broken)}) is None
    learned = Fusion(
        ["a", "b", "c"],
        {"clean": benign(500)},
        learner=Learner(("a", "b", "c"), torch.ones(6)),
    )
    assert learned.bounds(usual) is None
