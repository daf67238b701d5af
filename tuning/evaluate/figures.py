"""Shares with exact intervals, and how well a score tells two sets apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detectors.binomial import lower_bound, upper_bound
from tuning.evaluate.store import Row

_SIDE = 0.975
"""Of each one-sided bound: together 95 %."""
_NORMAL = 1.96


def share(name: str, over: Tensor) -> Row:
    """The share that is true with its 95 % Clopper-Pearson interval, named NAME, NAME_low, _high.

    Args:
        over: (N,) bool; of none the share is not known, and anything between 0 and 1.
    """
    count, total = int(over.sum()), len(over)
    if not total:
        return {name: None, f"{name}_low": 0.0, f"{name}_high": 1.0}
    return {
        name: round(count / total, 4),
        f"{name}_low": round(lower_bound(count, total, _SIDE), 4),
        f"{name}_high": round(upper_bound(count, total, _SIDE), 4),
    }


def auroc(negative: Tensor, positive: Tensor) -> float:
    """Chance that a positive scores above a negative, ties half."""
    return float(_placements(negative, positive).mean()) if len(positive) else math.nan


def share_of_bases(name: str, over: Tensor) -> Row:
    """The share of all that is true, as `share`, where what is made of one image hangs together.

    Clopper-Pearson with the effective number of samples: as many independent ones would give the
    variance that the means of the images have.

    Args:
        over: (B, V) bool, V variations of each of B images.

    Source: Korn, Graubard, Survey Methodology 24 (1998), without their allowance for few images.
    """
    bases, total = len(over), over.numel()
    if not total:
        return share(name, over.flatten())
    told = float(over.double().mean())
    spread = float(over.double().mean(1).var() / bases) if bases > 1 else 0.0
    # All alike: nothing is known of how variations hang together, so each image counts once.
    count = min(total, max(1, int(told * (1 - told) / spread))) if spread > 0 else bases
    low, high = math.floor(told * count + 1e-9), math.ceil(told * count - 1e-9)
    return {
        name: round(told, 4),
        f"{name}_low": round(lower_bound(low, count, _SIDE), 4),
        f"{name}_high": round(upper_bound(high, count, _SIDE), 4),
    }


def auroc_row(negative: Tensor, positive: Tensor) -> Row:
    """The area under the curve with its 95 % interval; None where a side is too small.

    Args:
        negative: (B, V), V variations of each of B images, NaN where not known; (B,) of one each.
        positive: (P,), each of an image of its own.

    Source: DeLong, DeLong, Clarke-Pearson, Biometrics 44 (1988), variance from the placements;
    with images as clusters of their variations, Obuchowski, Biometrics 53 (1997).
    """
    negative = negative[:, None] if negative.ndim == 1 else negative
    negative = negative[negative.isfinite().any(1)]
    if len(negative) < 2 or len(positive) < 2:
        return {"auroc": None, "auroc_low": None, "auroc_high": None}
    known = negative.isfinite()
    above = _placements(negative[known], positive)
    area = float(above.mean())
    off = torch.zeros(known.shape, dtype=torch.float64)
    off[known] = 1 - area - _placements(positive, negative[known])
    bases = len(negative)
    varied = off.sum(1).square().sum() * bases / (bases - 1) / known.sum() ** 2
    spread = _NORMAL * math.sqrt(float(above.var() / len(above) + varied))
    return {
        "auroc": round(area, 4),
        "auroc_low": round(max(0.0, area - spread), 4),
        "auroc_high": round(min(1.0, area + spread), 4),
    }


def _placements(negative: Tensor, positive: Tensor) -> Tensor:
    """For each positive the share of negatives below it, ties half, (len(positive),) float64."""
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive)
    to = torch.searchsorted(ordered, positive, right=True)
    return (below + to).double() / (2 * max(1, len(negative)))


def threshold_at(benign: Tensor, fpr: float) -> float:
    """The score that at most this share of benign samples exceeds; inf where there are too few."""
    ordered = benign.sort(descending=True).values
    exceed = int(fpr * len(ordered) + 1e-9)
    return float(ordered[exceed]) if exceed else math.inf
