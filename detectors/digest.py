"""A number by which identical inputs are known."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from detectors.salted import drawn, mixed


class Digest:
    """A keyed 64-bit hash of every bit of an input: multiply-add with secret odd factors.

    Two different inputs have the same one with a probability of about 2**-63, unless whoever made
    them knows the key.

    Source: Dietzfelbinger, Hagerup, Katajainen, Penttonen, J. Algorithms 25(1), 1997
    (multiply-shift hashing).

    Args:
        key: secret, at least 16 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._factors = lru_cache(maxsize=4)(self._make)

    def __call__(self, x: Tensor) -> Tensor:
        """The digests of inputs (B, ...) float32, (B,) int64; of identical inputs alike."""
        bits = x.contiguous().view(torch.int32).flatten(1).to(torch.int64)
        return mixed((bits * self._factors(bits.shape[1], x.device)).sum(1))

    def _make(self, size: int, device: torch.device) -> Tensor:
        return (drawn(self._key, f"digest/{size}", size) | 1).to(device)
