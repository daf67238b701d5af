from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from purifiers import PurifierError
from purifiers.aggregate import majority_vote, mean_of_probabilities

RULES = [mean_of_probabilities, majority_vote]
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
Rule = Callable[[Tensor], Tensor]


def logits(copies: int = 5, batch: int = 4, classes: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(copies, batch, classes, generator=generator)


def of(*rows: list[float]) -> Tensor:
    """Log-probabilities of one sample, (V, 1, K)."""
    return torch.tensor(rows).log()[:, None]


def test_the_mean_equals_scipy() -> None:
    answers = logits()
    expected = np.log(special.softmax(answers.double().numpy(), axis=2).mean(0))
    np.testing.assert_allclose(mean_of_probabilities(answers).numpy(), expected, rtol=1e-5)


def test_votes_by_hand() -> None:
    # Two votes to one, although the one is surer; one more vote is split by the mean.
    answers = of([0.6, 0.4], [0.6, 0.4], [0.01, 0.99])
    shares = [(2 + 1.21 / 3) / 4, (1 + 1.79 / 3) / 4]
    torch.testing.assert_close(majority_vote(answers).exp(), torch.tensor([shares]))
    assert mean_of_probabilities(answers).argmax(1).item() == 1


def test_equal_votes_go_to_the_larger_mean() -> None:
    assert majority_vote(of([0.6, 0.4], [0.3, 0.7])).argmax(1).item() == 1
    assert majority_vote(of([0.9, 0.1], [0.3, 0.7])).argmax(1).item() == 0
    assert majority_vote(of([0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.4, 0.1, 0.5])).argmax(1) == 0


def test_a_lead_of_one_vote_stands_whatever_the_mean() -> None:
    answers = of([0.501, 0.499], [0.501, 0.499], [0.501, 0.499], [0.0, 1.0], [0.0, 1.0])
    assert majority_vote(answers).argmax(1).item() == 0


@each_rule
def test_probabilities_sum_to_one(rule: Rule) -> None:
    torch.testing.assert_close(rule(logits()).exp().sum(1), torch.ones(4))


@each_rule
def test_logits_and_log_probabilities_are_the_same(rule: Rule) -> None:
    answers = logits()
    torch.testing.assert_close(rule(answers.log_softmax(2) + 7), rule(answers))


@each_rule
def test_one_copy_keeps_its_class_and_copies_have_no_order(rule: Rule) -> None:
    answers = logits()
    assert torch.equal(rule(answers[:1]).argmax(1), answers[0].argmax(1))
    torch.testing.assert_close(rule(answers.flip(0)), rule(answers))


@each_rule
def test_a_batch_equals_its_samples(rule: Rule) -> None:
    answers = logits(batch=7)
    alone = torch.cat([rule(answers[:, i : i + 1]) for i in range(7)])
    torch.testing.assert_close(rule(answers), alone)
    assert rule(logits(batch=0)).shape == (0, 3)


@each_rule
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_stays_with_its_sample(rule: Rule, value: float) -> None:
    answers = logits()
    clean = rule(answers)
    answers[2, 1, 0] = value
    spoilt = rule(answers)
    assert torch.isnan(spoilt[1]).any()
    kept = [0, 2, 3]
    torch.testing.assert_close(spoilt[kept], clean[kept])


@each_rule
def test_a_probability_rounded_to_nothing_is_allowed(rule: Rule) -> None:
    answers = of([1.0, 0.0], [0.75, 0.25])
    shares = rule(answers).exp()
    assert torch.isfinite(shares).all()
    assert shares.argmax(1).item() == 0


@pytest.mark.parametrize("shape", [(4, 3), (0, 4, 3), (1, 2, 3, 4)])
@each_rule
def test_other_shapes_are_refused(rule: Rule, shape: tuple[int, ...]) -> None:
    with pytest.raises(PurifierError, match=r"answers must be \(V, B, K\)"):
        rule(torch.zeros(shape))
