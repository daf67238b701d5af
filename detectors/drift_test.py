"""Whether a window of traffic can be a mixture of the benign groups it was calibrated on.

The samples of one client resemble each other, so counts are compared by block: a cluster-robust
variance says how many independent samples they are worth. Every bound errs towards no finding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detectors.drift_reference import Floats, Reference, Scale, Signal
from detectors.drift_sketch import Sketch

LEAST_BLOCKS = 20
"""Blocks with samples below which nothing is found: a variance between fewer says little, and a
few clients must not look like a population."""
MOST_ALIKE = 0.05
"""Correlation of the samples in a stretch from which on stretches are not taken for independent:
what repeats within one, such as the frames of a few cameras, will repeat in the next."""
_STEPS = 60
"""Of expectation maximisation: beyond it, shares move by less than samples do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One signal of one window against the nearest mixture of benign groups."""

    signal: str
    p_value: float
    """Chance of such a difference or a larger one without a change, at most; 1 where there are too
    few blocks to tell."""
    distance: float
    """Effect size, 0 to 1: the largest difference of the distribution functions; for classes the
    total variation; for verdicts the share of suspicious samples beyond the calibrated one."""
    effective_samples: float
    """Independent samples that those seen are worth."""
    raw_samples: int
    blocks: int
    """Blocks with samples."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What all findings of a window come to."""

    is_drift: bool
    signals: tuple[str, ...]
    """Those that changed, by p-value and by distance."""


def alpha_of(windows: float) -> float:
    """The level at which a false alarm is expected once in so many windows.

    Args:
        windows: between two false alarms, at least 1: e.g. 30 * 24 * 6 for one in 30 days with a
            window every ten minutes. The run is longer where windows overlap.
    """
    return 1 / max(1.0, windows)


def compare(reference: Reference, sketch: Sketch) -> list[Finding]:
    """A finding for each signal of the reference, in its order.

    Where blocks are stretches of traffic and the samples within them are too much alike, every
    p-value is 1: a few cameras that look at the same all day are no population.
    """
    counts = {name: sketch.counts[name].astype(np.float64) for name in reference.signals}
    told = not sketch.by_stretch or _alike(reference, counts) < MOST_ALIKE
    return [
        _compared(name, signal, counts[name], told=told)
        for name, signal in reference.signals.items()
    ]


def alarm(findings: Sequence[Finding], alpha: float, least_distance: float) -> Decision:
    """Which signals changed, at one level for all of them together.

    Args:
        findings: of one window.
        alpha: chance of any false finding in a window, in (0, 1); see `alpha_of`.
        least_distance: smaller changes are none, however sure.

    Source: Holm, Scand. J. Statist. 6, 1979.
    """
    found = []
    for rank, finding in enumerate(sorted(findings, key=lambda each: each.p_value)):
        if finding.p_value > alpha / (len(findings) - rank):
            break
        if finding.distance >= least_distance:
            found.append(finding.signal)
    return Decision(bool(found), tuple(sorted(found)))


def _compared(name: str, signal: Signal, counts: Floats, *, told: bool) -> Finding:
    """One signal; counts (BLOCKS, K). Nothing is found unless `told`."""
    counts = counts[counts.sum(axis=1) > 0]
    sizes = counts.sum(axis=1)
    raw, blocks = int(sizes.sum()), len(sizes)
    if not blocks:
        return Finding(name, 1.0, 0.0, 0.0, 0, 0)
    # No block weighs more than the median one: a flood by one client counts as one client.
    weighted = counts * np.minimum(1.0, np.median(sizes) / sizes)[:, None]
    shares = weighted.sum(axis=0) / weighted.sum()
    expected = mixture(signal.groups, shares)
    seen, null = _parts(signal, shares), _parts(signal, expected)
    effective = _effective(signal, weighted, sizes)
    distance = _distance(signal, seen, null)
    if blocks < LEAST_BLOCKS or not told:
        return Finding(name, 1.0, distance, float(effective.min()), raw, blocks)
    # The groups are variations of the same samples: more of them are not more samples.
    both = 1 / (1 / effective + 1 / signal.samples)
    information = both * _divergence(seen, null)
    if signal.scale is Scale.RATE:
        information = np.where(seen > null, information, 0.0)
    mass = weighted.sum(axis=1)
    freedom = max(1.0, mass.sum() ** 2 / (mass**2).sum() - 1)
    tail = -freedom / 2 * math.log1p(2 * float(information.max()) / freedom)
    tests = len(seen) * (1 if signal.scale is Scale.RATE else 2)
    p = min(1.0, tests * math.exp(tail))
    return Finding(name, p, distance, float(effective.min()), raw, blocks)


def _alike(reference: Reference, counts: Mapping[str, Floats]) -> float:
    """How much the samples of a block are alike, 0 to 1: the least over the ordered signals.

    The chance that two samples of a block are in one bin, beyond that of two benign samples.
    Repeats raise it for every signal; a drift that drives one signal to its end leaves the others.
    """
    found = []
    for name, signal in reference.signals.items():
        pairs = (counts[name].sum(axis=1) * (counts[name].sum(axis=1) - 1)).sum()
        if signal.scale is not Scale.ORDERED or not pairs:
            continue
        shares = counts[name].sum(axis=0) / counts[name].sum()
        chance = float((mixture(signal.groups, shares) ** 2).sum())
        met = float((counts[name] * (counts[name] - 1)).sum() / pairs)
        found.append((met - chance) / (1 - chance))
    return max(0.0, min(found, default=0.0))


def mixture(groups: Floats, shares: Floats) -> Floats:
    """The mixture of the groups that is nearest to these shares, (K,).

    Args:
        groups: (G, K), rows summing to 1, no bin 0 in all of them.
        shares: (K,), summing to 1.

    Source: Dempster, Laird and Rubin, J. Roy. Stat. Soc. B 39, 1977, section 4.3.
    """
    weights = np.full(len(groups), 1 / len(groups))
    for _ in range(_STEPS):
        weights = weights * (groups @ (shares / (weights @ groups)))
    mixed: Floats = weights @ groups / weights.sum()
    return mixed


def _parts(signal: Signal, shares: Floats) -> Floats:
    """The shares that are tested, (..., T): up to each edge, of each class, of suspicious ones."""
    if signal.scale is Scale.ORDERED:
        summed: Floats = np.cumsum(shares, axis=-1)[..., :-1]
        return summed
    return shares if signal.scale is Scale.NOMINAL else shares[..., 1:]


def _distance(signal: Signal, seen: Floats, null: Floats) -> float:
    if signal.scale is Scale.NOMINAL:
        return float(np.abs(seen - null).sum() / 2)
    if signal.scale is Scale.RATE:
        return float(max(0.0, seen[0] - null[0]))
    return float(np.abs(seen - null).max(initial=0.0))


def _effective(signal: Signal, weighted: Floats, sizes: Floats) -> Floats:
    """Independent samples that each tested share rests on, (T,), at most those of one weight.

    The design effect is the cluster-robust variance of a share over that of independent samples;
    the largest of each one's own, their mean and 1 is used, so that none is flattered by chance.

    Source: Rao and Scott, J. Amer. Statist. Assoc. 76, 1981; Kish, Survey Sampling, 1965, for the
    samples that unequal weights are worth.
    """
    mass = weighted.sum(axis=1)
    blocks = len(mass)
    kish = mass.sum() ** 2 / (mass**2 / sizes).sum()
    parts = _parts(signal, weighted)  # (blocks, T)
    shares = parts.sum(axis=0) / mass.sum()
    rest = parts - mass[:, None] * shares
    variance = (rest**2).sum(axis=0) / mass.sum() ** 2 * blocks / max(1, blocks - 1)
    simple = shares * (1 - shares) / kish
    told = simple > 0
    design = np.ones_like(shares)
    np.divide(variance, simple, out=design, where=told)
    mean = float(np.average(design, weights=simple)) if told.any() else 1.0
    samples: Floats = kish / np.maximum(np.maximum(design, mean), 1.0)
    return samples


def _divergence(seen: Floats, null: Floats) -> Floats:
    """Kullback-Leibler divergence of two-valued distributions, in nats.

    Samples times it bounds the logarithm of a binomial tail, also far out, where a normal
    approximation comes out too small.

    Source: Hoeffding, J. Amer. Statist. Assoc. 58, 1963, theorem 1.
    """
    p, q = np.clip(seen, 0.0, 1.0), np.clip(null, 1e-12, 1 - 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.where(p > 0, p * np.log(p / q), 0.0)
        down = np.where(p < 1, (1 - p) * np.log((1 - p) / (1 - q)), 0.0)
    total: Floats = np.maximum(0.0, up + down)
    return total
