from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import entropy
from torch import Tensor

from detectors import Evidence
from detectors.entropy import Entropy


def score(output: Tensor) -> Tensor:
    return Entropy().score(Evidence(torch.zeros(len(output), 1, 2, 2), output))


def test_equals_scipys_entropy() -> None:
    output = 2 * torch.randn(6, 10, generator=torch.Generator().manual_seed(1))
    expected = np.log(entropy(output.softmax(1).double().numpy(), axis=1) + 1e-6)
    torch.testing.assert_close(
        score(output), torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-4
    )


def test_a_spread_answer_scores_above_a_close_decision_above_a_sure_one() -> None:
    spread, close, sure = score(
        torch.tensor([[1.0, 0.99, 0.98, 0.97], [9.0, 8.99, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]])
    )
    assert spread > close > sure


def test_probabilities_serve_as_well_as_logits() -> None:
    output = 5 * torch.randn(20, 10, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        score(output.log_softmax(1)), score(output + 50), rtol=1e-3, atol=1e-3
    )


def test_a_probability_rounded_to_zero_is_no_failure() -> None:
    scores = score(torch.tensor([[0.0, -math.inf, -math.inf]]))
    torch.testing.assert_close(scores, torch.tensor([math.log(1e-6)]), rtol=0, atol=1e-3)
