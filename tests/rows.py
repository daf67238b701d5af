"""Benign and tampered rows of a table whose features depend on each other."""

from __future__ import annotations

import torch
from torch import Tensor

from detectors.base import Evidence
from detectors.benign import variations

SCALES = torch.logspace(-2, 4, 12)


def table(count: int, seed: int) -> Tensor:
    """Twelve features of very different size that four hidden ones explain, but for a little."""
    fixed = torch.Generator().manual_seed(99)
    mixing = torch.randn(4, 12, generator=fixed)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, 4, generator=generator)
    rest = 0.1 * torch.randn(count, 12, generator=generator)
    return (hidden @ mixing + rest + 8) * SCALES


def attacked(count: int, seed: int, size: float = 0.6) -> Tensor:
    """The rows with every feature moved by `size` spreads, up or down at random."""
    signs = torch.randn(count, 12, generator=torch.Generator().manual_seed(seed + 1)).sign()
    return table(count, seed) + size * 2 * signs * SCALES


def evidence(count: int = 150, seed: int = 0) -> dict[str, Evidence]:
    """All benign groups, for fitting."""
    groups = variations(table(count, seed), torch.Generator().manual_seed(seed))
    return {name: Evidence(x) for name, x in groups.items()}
