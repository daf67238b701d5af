"""What detectors share when they read a model's answer: logits or log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from detectors.base import DetectorError

_SPAN = 100.0
"""Answers further than this below the largest are raised to it. A probability that was rounded to
0 arrives as -inf; without the floor one such class would make every score non-finite."""


def floored(output: Tensor) -> Tensor:
    """Return the answer with -inf replaced by a finite floor, (B, K); NaN and +inf stay.

    Raises:
        DetectorError: fewer than two classes.
    """
    if output.ndim != 2 or output.shape[1] < 2:
        raise DetectorError(f"needs an answer of shape (B, K), K > 1, not {tuple(output.shape)}")
    return torch.maximum(output, output.amax(dim=1, keepdim=True) - _SPAN)
