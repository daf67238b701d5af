"""How the features of benign rows vary together, and two ways to look at rows by it."""

from __future__ import annotations

import torch
from torch import Tensor

_SHRINK = (0.05, 0.5)
"""Least and largest share of the covariance replaced by its diagonal; in between, a quarter of the
features' number over the samples'."""
_RIDGE = 1e-3
"""Added variance, in squared feature units: a feature constant on benign data has no scale."""


def conditional(features: Tensor) -> tuple[Tensor, Tensor]:
    """Learn a mean (D,) and weights (D, D) such that `(f - mean) @ weights` are the deviations.

    The deviation of feature i is what is left of it after the best linear prediction from all
    others, in standard deviations of that remainder: (Pf)_i / sqrt(P_ii) with the inverse
    covariance P. The Mahalanobis distance is a weighted sum of them; taken one by one, each can be
    given a bounded influence.

    Args:
        features: (n, D), n >= 2, finite.
    """
    mean, covariance = _moments(features)
    precision = torch.linalg.inv(covariance)
    return mean.float(), (precision / precision.diagonal().sqrt()).float()


def whitening(features: Tensor) -> Tensor:
    """Learn weights (D, D) such that `f @ weights` has unit variance in every direction.

    The symmetric ones, which change the features as little as can be.

    Args:
        features: (n, D), n >= 2, finite.
    """
    size, directions = torch.linalg.eigh(_moments(features)[1])
    weights: Tensor = (directions / size.sqrt()) @ directions.T
    return weights.float()


def influence(deviations: Tensor) -> Tensor:
    """Return the mean over the last axis of log(1 + e^2): no single feature decides.

    Tables have cells that are off and yet benign, such as a missing value replaced by the mean; an
    attack by gradients moves all features a little.
    """
    return deviations.square().log1p().mean(dim=-1)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and shrunk covariance (D, D) in float64."""
    samples = features.double()
    count, size = samples.shape
    covariance = torch.cov(samples.T).reshape(size, size)
    shrink = min(max(size / (4 * count), _SHRINK[0]), _SHRINK[1])
    covariance = (1 - shrink) * covariance + shrink * torch.diag(covariance.diagonal())
    covariance += _RIDGE * torch.eye(size, dtype=samples.dtype, device=samples.device)
    return samples.mean(dim=0), covariance
