"""Distances to a bounded set of benign features."""

from __future__ import annotations

import torch
from torch import Tensor


def spread(count: int, most: int, device: torch.device) -> Tensor:
    """At most `most` of `count` rows, evenly spaced: every group and image has its share, (n,)."""
    if count <= most:
        return torch.arange(count, device=device)
    return torch.arange(most, device=device) * count // most


def squared_distances(x: Tensor, reference: Tensor) -> Tensor:
    """Squared Euclidean distances between features (B, D) and (R, D), (B, R), at least 0.

    Not `torch.cdist`, whose gradient is undefined at distance 0 and which computes small batches in
    another way than large ones.
    """
    centre = reference.mean(0)  # near 0 the products cancel less
    x, reference = x - centre, reference - centre
    squares = x.square().sum(1, keepdim=True) + reference.square().sum(1)
    return (squares - 2 * x @ reference.T).clamp_min(0)
