"""Exact confidence bounds of a share, without scipy."""

from __future__ import annotations

import math


def upper_bound(count: int, total: int, confidence: float = 0.95) -> float:
    """The Clopper-Pearson upper bound of a share: count of total seen, one-sided.

    The true share lies at or below it in at least `confidence` of experiments.

    Args:
        count: successes, 0 to total.
        total: trials, at least 1.
        confidence: in (0, 1).

    Source: Clopper and Pearson, Biometrika 26 (1934). For a conformal threshold (the k-th smallest
    of n scores) it equals the upper quantile of the Beta(n + 1 - k, k) law of its true
    false-positive rate (Vovk 2012, arXiv 1209.2673).
    """
    if count >= total:
        return 1.0
    low, high = count / total, 1.0
    for _ in range(60):  # halves the interval: beyond double precision
        middle = (low + high) / 2
        if _at_most(count, total, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def lower_bound(count: int, total: int, confidence: float = 0.95) -> float:
    """The Clopper-Pearson lower bound of a share, one-sided; arguments as `upper_bound`."""
    return 1.0 - upper_bound(total - count, total, confidence)


def _at_most(count: int, total: int, share: float) -> float:
    """P(X <= count) for X ~ Binomial(total, share), count / total <= share <= 1."""
    if share >= 1.0:
        return 0.0
    largest = (
        math.lgamma(total + 1)
        - math.lgamma(count + 1)
        - math.lgamma(total - count + 1)
        + count * math.log(share)
        + (total - count) * math.log1p(-share)
    )
    # From the largest term down, each by its ratio to the last, until they no longer count.
    term = relative = 1.0
    for i in range(count, 0, -1):
        term *= i / (total - i + 1) * (1 - share) / share
        relative += term
        if term < 1e-17 * relative:
            break
    return math.exp(largest) * relative
