"""Whether live scores look like those calibrated on: shifts by detector, excesses in the tail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detectors.binomial import lower_bound
from tuning.live_scores import Scores

SURE = 0.99
"""Confidence that more samples are above a threshold than its rate explains."""
_STEP = 2.0
"""Between the rates looked at in the far tail."""
_LEAST_EXPECTED = 0.1
"""Benign samples above the last threshold in the far tail."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How one detector's live scores differ from those of the benign group they are most like."""

    detector: str
    group: str
    """The benign group at the least distance."""
    distance: float
    """Kolmogorov-Smirnov: the largest difference of the two distribution functions, 0 to 1."""
    p: float
    """Chance of such a distance or a larger one between two samples of one distribution."""
    median: float
    """How much higher the live median is, in the group's interquartile ranges."""


@dataclass(frozen=True, slots=True)
class Excess:
    """Samples above one threshold of the previous calibration."""

    rate: float
    """The false-positive rate of that threshold: so large a share at most, of benign samples."""
    above: int
    expected: float
    """So many at most, of as many benign samples, on average."""

    @property
    def samples(self) -> float:
        """More than expected."""
        return max(0.0, self.above - self.expected)


def shifts(names: Sequence[str], live: Scores, groups: Mapping[str, Scores]) -> tuple[Shift, ...]:
    """One for each detector.

    Args:
        names: the detectors, in the order of the columns.
        live: (n, D), n >= 1.
        groups: benign group -> (m, D), m >= 1.
    """
    found = []
    for column, name in enumerate(names):
        apart = {
            group: distance(live[:, column], scores[:, column]) for group, scores in groups.items()
        }
        group = min(apart, key=apart.__getitem__)
        near = groups[group][:, column]
        low, middle, high = np.quantile(near, (0.25, 0.5, 0.75))
        moved = float(np.median(live[:, column]) - middle)
        shift = moved / (high - low) if high > low else math.copysign(math.inf, moved)
        found.append(
            Shift(
                name,
                group,
                apart[group],
                p_value(apart[group], len(live), len(near)),
                shift if moved else 0.0,
            )
        )
    return tuple(found)


def excesses(fused: Scores, thresholds: Mapping[float, float]) -> tuple[Excess, ...]:
    """The rates at which more samples are above the threshold than chance explains.

    Args:
        fused: (n,), n >= 1.
        thresholds: false-positive rate -> the previous calibration's threshold.

    Source: the one-sided Clopper-Pearson bound at `SURE`. The threshold's own uncertainty (a
    conformal threshold's true rate follows a Beta law) is not taken off, so that a small previous
    calibration finds excesses early: rather a sample too few than an attack learned as benign.
    """
    found = []
    for rate, threshold in thresholds.items():
        above = int((fused > threshold).sum())
        if lower_bound(above, len(fused), SURE) > rate:
            found.append(Excess(rate, above, rate * len(fused)))
    return tuple(found)


def tail_thresholds(
    supported: Mapping[float, float], groups: Mapping[str, Scores], count: int
) -> dict[float, float]:
    """Thresholds of smaller rates than a calibration supports, for `excesses` to look far out.

    Benign fused scores fall off exponentially in the tail, attacked ones often lie far beyond: at a
    rate that leaves a tenth of a sample of benign traffic, a handful stands out.

    Args:
        supported: false-positive rate -> the calibration's threshold, at least one.
        groups: benign group -> fused scores, (m,), m >= 10.
        count: samples that are to be judged.

    Returns:
        rate -> threshold, down to `_LEAST_EXPECTED` / count: from the least supported one on by the
        mean excess over the 90 % quantile, of the group where it is largest.

    Source: the mean excess is the maximum-likelihood scale of an exponential tail (Davison and
    Smith, J. Roy. Stat. Soc. B 52, 1990).
    """
    start = min(supported)
    scale = 0.0
    for fused in groups.values():
        high = np.quantile(fused, 0.9)
        over = fused[fused > high] - high
        scale = max(scale, float(over.mean()) if len(over) else 0.0)
    found = {}
    rate = start / _STEP
    while rate * count >= _LEAST_EXPECTED:
        found[rate] = supported[start] + scale * math.log(start / rate)
        rate /= _STEP
    return found


def distance(first: Scores, second: Scores) -> float:
    """The two-sample Kolmogorov-Smirnov distance of (n,) and (m,), both at least 1."""
    first, second = np.sort(first), np.sort(second)
    at = np.concatenate((first, second))
    below = np.searchsorted(first, at, "right") / len(first)
    other = np.searchsorted(second, at, "right") / len(second)
    return float(np.abs(below - other).max())


def p_value(apart: float, first: int, second: int) -> float:
    """Asymptotic chance of such a distance or a larger one between samples of one distribution.

    Args:
        apart: the distance.
        first: samples of one.
        second: samples of the other; from a few dozen on it is good to a hundredth.

    Source: Kolmogorov's series, with Stephens' correction for finite samples (Stephens, J. Roy.
    Stat. Soc. B 32, 1970).
    """
    size = math.sqrt(first * second / (first + second))
    x = (size + 0.12 + 0.11 / size) * apart
    if x < 0.2:  # the series needs many terms where the chance is 1 to twelve digits
        return 1.0
    terms = [math.exp(-2 * (k * x) ** 2) for k in range(1, 101)]
    return min(1.0, max(0.0, 2 * (sum(terms[::2]) - sum(terms[1::2]))))
