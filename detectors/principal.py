"""The directions in which benign rows vary, and what a row has besides."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from detectors.base import DetectorError

_MOST_ROWS = 2048
"""Rows learned from, evenly taken: beyond it, time grows and the directions hardly change."""


class Principal:
    """Principal components of rows (N, D).

    Args:
        mean: (D,).
        basis: (D, R), orthonormal columns, the direction of largest variance first.
    """

    def __init__(self, mean: Tensor, basis: Tensor) -> None:
        self.mean, self.basis = mean, basis

    @classmethod
    def fit(cls, z: Tensor, *, share: float = 1.0, most: int | None = None) -> Principal:
        """Learn from benign rows, (n, D).

        Args:
            share: of the variance that the directions together hold, at least.
            most: directions, at most.
        """
        kept = z[:: -(-len(z) // _MOST_ROWS)].double()
        mean = kept.mean(dim=0)
        _, size, directions = torch.linalg.svd(kept - mean, full_matrices=False)
        held = size.square().cumsum(0) / size.square().sum().clamp_min(1e-30)
        count = int((held < share - 1e-9).sum()) + 1
        count = min(count, len(directions), most if most is not None else len(directions))
        return cls(mean.float(), directions[:count].T.contiguous().float())

    def project(self, z: Tensor) -> Tensor:
        """Return the coordinates of rows along the directions, (N, R)."""
        return (z - self.mean) @ self.basis

    def rest(self, z: Tensor) -> Tensor:
        """Return what the directions cannot express of rows, (N, D)."""
        return (z - self.mean) - self.project(z) @ self.basis.T

    def state(self) -> dict[str, Tensor]:
        """What `from_state` needs."""
        return {"mean": self.mean, "basis": self.basis}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], device: torch.device) -> Principal:
        """The inverse of `state`, on the given device; other entries are left alone.

        Raises:
            DetectorError: a part is missing.
        """
        if not {"mean", "basis"} <= set(state):
            raise DetectorError(f"expected mean and basis, not {sorted(state)}")
        return cls(state["mean"].to(device), state["basis"].to(device))
