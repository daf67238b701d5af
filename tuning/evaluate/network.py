"""A copy of the served model as attack libraries take it, and what computes it."""

from __future__ import annotations

import os
from typing import Literal

from torch import Tensor, nn

from proxy.cpu_quota import available_cpus
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


def free_threads() -> int | Literal["auto"]:
    """The processors that are free, unless the operator says otherwise.

    Threads that wait for one another on a busy machine are far slower than one alone: APGD on 12
    images took 1.6 s of one thread, and two had not done after 120 s at a load of 10 on 2 cores.
    """
    free = int(available_cpus() - os.getloadavg()[0] + 0.5)
    return "auto" if "OMP_NUM_THREADS" in os.environ else max(1, free)
