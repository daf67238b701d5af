"""What detectors share when they read a model's answer: logits or log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from detectors.base import DetectorError

_SPAN = 100.0
"""Answers further than this below the largest are raised to it. A probability that was rounded to
0 arrives as -inf; without the floor one such class would make every score non-finite."""


ROW_ERROR = 2e-6
"""How far scores of plain floats may be from those of tensors, times 1 + the score: some units in
the last place of the float32 that tensors add up in."""


def floored(output: Tensor) -> Tensor:
    """Return the answer with -inf replaced by a finite floor, (B, K); NaN and +inf stay.

    Raises:
        DetectorError: fewer than two classes.
    """
    if output.ndim != 2 or output.shape[1] < 2:
        raise DetectorError(f"needs an answer of shape (B, K), K > 1, not {tuple(output.shape)}")
    return torch.maximum(output, output.amax(dim=1, keepdim=True) - _SPAN)


def shifted(row: Sequence[float]) -> list[float] | None:
    """One sample's answer less its largest value, floored as by `floored`, in plain floats.

    Args:
        row: (K,), values of float32.

    Returns:
        (K,) in [-100, 0], about; None where an answer is not finite, or there is but one class.
    """
    if len(row) < 2:
        return None
    largest = max(row)
    # A NaN hides from the maximum, but not from the sum; the sum of float32 cannot overflow here.
    total = sum(row)
    if total != total or not math.isfinite(largest):
        return None
    # Where the largest is huge the floor is rounded to it, here as there.
    least = float(np.float32(largest - _SPAN)) - largest
    return [max(each - largest, least) for each in row]
