"""Benign scores by group: checked, and parted into what fusions and what thresholds learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from detectors.rule import FIT_SHARE, CalibrationError

_LEAST_SAMPLES = 30
"""Fewest samples of a group: 10 for the fusion, 20 for any threshold at all."""


def split(
    groups: Mapping[str, Mapping[str, Tensor]], names: Sequence[str], seed: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The fusions' part and the thresholds' part of each group.

    Args:
        groups: benign group -> detector -> (n_g,) scores.
        names: the detectors, in the order of the columns.
        seed: of the split.

    Returns:
        For each part: group -> (n, D).
    """
    fitting, held = {}, {}
    for group, scores in groups.items():
        matrix = torch.stack([scores[name].float().cpu() for name in names], dim=1)
        # Equal groups are split alike, so variations of one image stay on one side.
        order = torch.randperm(len(matrix), generator=torch.Generator().manual_seed(seed))
        first, rest = order.tensor_split([round(len(matrix) * FIT_SHARE)])
        fitting[group], held[group] = matrix[first], matrix[rest]
    return fitting, held


def check(groups: Mapping[str, Mapping[str, Tensor]], names: Sequence[str]) -> None:
    """Refuse groups nothing can be learned from; arguments as `split`.

    Raises:
        CalibrationError: no group, a group too small, scores missing, of unequal number or not
            finite.
    """
    if not groups or not names:
        raise CalibrationError("needs at least one benign group and one detector")
    for group, scores in groups.items():
        missing = [name for name in names if name not in scores]
        if missing:
            raise CalibrationError(f"group {group!r} has no scores of {missing}")
        sizes = {scores[name].numel() for name in names}
        if len(sizes) > 1 or min(sizes) < _LEAST_SAMPLES:
            raise CalibrationError(
                f"group {group!r} has {sorted(sizes)} scores; needs {_LEAST_SAMPLES} or more of "
                "each detector, and equally many"
            )
        for name in names:
            if not torch.isfinite(scores[name]).all():
                raise CalibrationError(f"group {group!r}: {name} has scores that are not finite")
