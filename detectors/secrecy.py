"""Detectors drawn by a secret: which count, and how much, differs between deployments."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST, _MOST = 0.5, 1.5
"""Range of the weights of detectors that are kept."""


@dataclass(frozen=True, slots=True)
class Secrecy:
    """Weights of the detectors, a function of a key and an epoch.

    An attacker who optimises against a fusion known to the last digit gets past it, but not past
    detectors that were no part of it: with another subset and other weights in every deployment
    and every epoch, what was found against one is not made for the next. It hides a choice, not
    the detectors, and does nothing against an attack that meets none of them.

    Source: the measurement that detectors left out of a white-box attack's target still saw its
    results; randomised ensembles after Grosse et al. 2017 and He et al., WOOT 2017 (arXiv
    1706.04701), which shows that a known ensemble alone is no defence.
    """

    key: bytes
    epoch: int
    keep: float = 0.7
    """Share of the detectors kept, at least one."""

    def weights(self, names: Sequence[str]) -> Tensor:
        """A weight for each detector, (D,): 0 for those left out, otherwise in [0.5, 1.5].

        The same for the same key, epoch and names, in whatever order the names are given.
        """
        if not names:
            return torch.empty(0)
        drawn = {name: self._draw(name, "order") for name in names}
        count = max(1, round(self.keep * len(names)))
        kept = sorted(names, key=drawn.__getitem__)[:count]
        return torch.tensor(
            [
                _LEAST + (_MOST - _LEAST) * self._draw(name, "weight") if name in kept else 0.0
                for name in names
            ]
        )

    def _draw(self, name: str, purpose: str) -> float:
        """A number in [0, 1) nobody can tell without the key."""
        message = f"{self.epoch}/{purpose}/{name}".encode()
        digest = hmac.new(self.key, message, hashlib.sha256).digest()
        return int.from_bytes(digest[:8], "big") / 2**64
