"""Secret numbers out of a key, and the scrambling of hashes: what fingerprints have in common."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

SHORTEST_KEY = 16
"""Least length of a key in bytes."""


def levels(x: Tensor) -> Tensor:
    """Return 8-bit levels, uint8 of the same shape, the same on every device.

    Args:
        x: float32 in [0, 1]; what is outside counts as its limits, and what is no number as 0.
    """
    return (x * 255).nan_to_num(0).round_().clamp_(0, 255).to(torch.uint8)


def in_parts(function: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """Return what a function makes of a batch; the CPU takes about `size` values at a time.

    What is made of a whole large batch does not stay in its caches on the way.
    """
    part = max(1, size // x[0].numel()) if x.device.type == "cpu" and len(x) else max(1, len(x))
    return torch.cat([function(piece) for piece in x.split(part)])


def drawn(key: bytes, purpose: str, count: int) -> Tensor:
    """Return numbers nobody can tell without the key, (count,) int64, uniform over all 64 bits.

    The same on every machine, for the same key and purpose; another purpose's are unrelated. The
    key is stretched by HMAC-SHA256 and SHAKE-256 (FIPS 202), on the CPU.
    """
    seed = hmac.new(key, purpose.encode(), hashlib.sha256).digest()
    numbers = np.frombuffer(hashlib.shake_256(seed).digest(8 * count), "<i8")
    return torch.from_numpy(numbers.astype(np.int64))


def mixed(x: Tensor) -> Tensor:
    """Return 64-bit numbers scrambled so that each bit depends on all; a bijection that keeps 0.

    Args:
        x: int64, any shape. Products wrap around at 64 bits, on the CPU and on CUDA alike.

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, figure 17).
    """
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9 as a signed number
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift to the right, filling with zeros; torch's own shift repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
