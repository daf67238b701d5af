"""A copy of the served model as attack libraries take it."""

from __future__ import annotations

from torch import Tensor, nn

from tuning.local_model import LocalModel


class Network(nn.Module):
    """A copy of the model as the attack libraries take it; its answers are as the copy's.

    Args:
        copy: of the model. It is no submodule: an exported program cannot change its mode.
    """

    def __init__(self, copy: LocalModel) -> None:
        super().__init__()
        self._copy = copy

    def forward(self, x: Tensor) -> Tensor:
        """Logits or log-probabilities of (B, C, H, W) pixels in [0, 1], (B, K)."""
        return self._copy(x)
