"""One answer out of the model's answers to several purified copies of each sample."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from purifiers.base import PurifierError


def mean_of_probabilities(answers: Tensor) -> Tensor:
    """The copies' probabilities, averaged: log-probabilities, (B, K).

    Args:
        answers: to V copies of each sample, (V, B, K) float32, logits or log-probabilities.

    Raises:
        PurifierError: not three axes, or no copies.

    Source: Guo et al., ICLR 2018 (arXiv 1711.00117), 4, who average over random crops. Known
    adaptive break: Athalye et al., ICML 2018 (arXiv 1802.00420, 5.3.1); the attacker averages as
    well.
    """
    return torch.logsumexp(_log_probabilities(answers), dim=0) - math.log(len(answers))


def majority_vote(answers: Tensor) -> Tensor:
    """Each copy votes for its class; the shares of the votes as log-probabilities, (B, K).

    Ties: of the classes with most votes, the one with the larger mean probability wins. That mean
    is counted as one more vote, split among the classes: it can decide between equal counts, and
    never overturns a lead of a whole vote. A copy with several largest values votes for the first.

    Args:
        answers: to V copies of each sample, (V, B, K) float32, logits or log-probabilities.

    Raises:
        PurifierError: not three axes, or no copies.

    Source: Cohen, Rosenfeld, Kolter, ICML 2019 (arXiv 1902.02918), 3.2, who vote over noisy
    copies.
    """
    probabilities = _log_probabilities(answers).exp()
    votes = F.one_hot(probabilities.argmax(2), answers.shape[2])  # (V, B, K)
    return torch.log((votes.sum(0) + probabilities.mean(0)) / (len(answers) + 1))


def _log_probabilities(answers: Tensor) -> Tensor:
    if answers.ndim != 3 or not len(answers):
        raise PurifierError(
            f"answers must be (V, B, K) with V copies at least 1, not {tuple(answers.shape)}"
        )
    return answers.log_softmax(dim=2)
