"""Which recorded samples may count as benign: screened step by step, each step counted.

Whoever sends traffic takes part in what is recorded of it, so that a threshold made from all of it
would be the attacker's to move. Every step is a pure function of arrays, does not depend on the
order samples came in, and never drops what an operator has labelled benign.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tuning.live_scores import ADVERSARIAL, BENIGN, Flags, Rows, Scores, Traffic

SHARE = 0.1
"""Of the samples that are left, what one principal may give at most."""
LOST = 0.01
"""Share of benign samples, all different, that may be taken for near-duplicates by chance."""
BEYOND = "beyond a principal's share"
"""Begins the name of the step that thins what one principal gave."""
_PAIRED = 300
"""Samples of each benign group that distances are measured between, at most."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the screening did."""

    what: str
    """What was dropped, in words."""
    dropped: int
    left: int


@dataclass(frozen=True, slots=True)
class Screened:
    """What came through, and how."""

    rows: Rows
    """Of the traffic, ascending."""
    steps: tuple[Step, ...]


class Spacing:
    """How far apart the scores of different benign samples are.

    The distance of two samples is the largest difference of any detector's scores, in units of
    that detector's benign interquartile range. Queries of one search, frames of one video and
    retries of one image lie far closer together than two different images do.

    Args:
        groups: benign group -> (n, D) scores of different samples; NaN nowhere.
    """

    def __init__(self, groups: Mapping[str, Scores]) -> None:
        low, high = np.quantile(np.concatenate(list(groups.values())), (0.25, 0.75), axis=0)
        self.scale = np.where(high > low, high - low, 1.0)
        between = [_distances(scores[:_PAIRED] / self.scale) for scores in groups.values()]
        self._between = np.sort(np.concatenate(between))

    def radius(self, count: int) -> float:
        """The distance below which two samples of one principal are near-duplicates.

        Args:
            count: samples of that principal. Among so many different benign ones, about `LOST` of
                them have another one so near: the more there are, the nearer the nearest.
        """
        if count < 2 or not len(self._between):
            return 0.0
        wanted = LOST / (count - 1) * len(self._between)  # so many of the pairs measured
        # Fewer than one: by the law of the sparsest sets, a line; it takes too little for near.
        return float(self._between[int(max(wanted, 1)) - 1] * min(wanted, 1.0))


def screen(traffic: Traffic, spacing: Spacing, *, share: float = SHARE, seed: int = 0) -> Screened:
    """Drop what is no evidence of benign traffic.

    Args:
        traffic: what was recorded.
        spacing: of the previous calibration's benign scores.
        share: of what is left, the most one principal may give.
        seed: of the choice among one principal's samples.
    """
    steps: list[Step] = []
    left = np.arange(len(traffic))
    for what, bad in unusable(traffic).items():
        left = _dropped(steps, what, left, bad[left])
    left = _dropped(
        steps, "scored like one labelled adversarial", left, like_adversarial(traffic, left)
    )
    left = _dropped(steps, "the same scores again", left, repeated(traffic, left))
    near = nearly_repeated(traffic, left, spacing)
    left = _dropped(steps, "near-duplicates of one principal", left, near)
    many = excessive(traffic, left, share=share, seed=seed)
    left = _dropped(steps, f"{BEYOND} of {share:.0%}", left, many)
    return Screened(left, tuple(steps))


def unusable(traffic: Traffic) -> dict[str, Flags]:
    """Samples that are no evidence by themselves, (N,) for each reason."""
    spared = traffic.labels == BENIGN
    missing = np.isnan(traffic.scores)
    return {
        "labelled adversarial": traffic.labels == ADVERSARIAL,
        "no verdict": traffic.failed & ~(spared & ~missing.any(axis=1)),
        "scores of some detectors missing": missing.any(axis=1),
        "in a chain of queries, or in quarantine": traffic.chained & ~spared,
    }


def like_adversarial(traffic: Traffic, rows: Rows) -> Flags:
    """Which of these samples have the very scores of one that is labelled adversarial."""
    marked = {_key(scores) for scores in traffic.scores[traffic.labels == ADVERSARIAL]}
    found = np.array([_key(scores) in marked for scores in traffic.scores[rows]], bool)
    found[traffic.labels[rows] == BENIGN] = False
    return found


def repeated(traffic: Traffic, rows: Rows) -> Flags:
    """Which of these samples have the scores of another one of them, labelled or earlier by id."""
    spared = traffic.labels[rows] == BENIGN
    seen = {_key(scores) for scores in traffic.scores[rows[spared]]}
    found = np.zeros(len(rows), bool)
    for place in np.flatnonzero(~spared):
        key = _key(traffic.scores[rows[place]])
        found[place] = key in seen
        seen.add(key)
    return found


def nearly_repeated(traffic: Traffic, rows: Rows, spacing: Spacing) -> Flags:
    """Which of these samples lie near another one of the same principal that stays."""
    found = np.zeros(len(rows), bool)
    principals = traffic.principals[rows]
    for principal in np.unique(principals):
        places = np.flatnonzero(principals == principal)
        spared = traffic.labels[rows[places]] == BENIGN
        scores = traffic.scores[rows[places]] / spacing.scale
        found[places] = _near(scores, spared, spacing.radius(len(places)))
    return found


def excessive(traffic: Traffic, rows: Rows, *, share: float, seed: int) -> Flags:
    """Which of these samples are beyond what one principal may give, drawn by seed and id."""
    principals = traffic.principals[rows]
    most = quota(Counter(principals.tolist()), share)
    spared = traffic.labels[rows] == BENIGN
    drawn = [hashlib.sha256(f"{seed}/{each}".encode()).digest() for each in traffic.ids[rows]]
    given: Counter[str] = Counter()
    found = np.zeros(len(rows), bool)
    for place in sorted(range(len(rows)), key=lambda i: (not spared[i], drawn[i])):
        principal = str(principals[place])
        found[place] = given[principal] >= most and not spared[place]
        given[principal] += 1
    return found


def quota(counts: Mapping[str, int], share: float) -> int:
    """The most samples a principal may give so that none gives more than a share of all given.

    Args:
        counts: samples by principal, each at least 1.
        share: wanted; with fewer principals than it takes, each gives as many as the others.
    """
    if not counts:
        return 0
    numbers = np.array(list(counts.values()))
    share = max(share, 1 / len(numbers))
    low, high = 1, int(numbers.max())
    while low < high:  # what all give grows more slowly than what one gives, so halving finds it
        middle = (low + high + 1) // 2
        fits = middle <= share * int(np.minimum(numbers, middle).sum()) + 1e-9
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def highest(traffic: Traffic, rows: Rows, fused: Scores, count: int) -> Flags:
    """The `count` most suspicious of these samples, but for those labelled benign.

    Args:
        fused: their scores, (n,).
    """
    found = np.zeros(len(rows), bool)
    open_to = np.flatnonzero(traffic.labels[rows] != BENIGN)
    order = np.lexsort((traffic.ids[rows[open_to]], -fused[open_to]))
    found[open_to[order[:count]]] = True
    return found


def _dropped(steps: list[Step], what: str, rows: Rows, bad: Flags) -> Rows:
    left = rows[~bad]
    steps.append(Step(what, int(bad.sum()), len(left)))
    return left


def _key(scores: Scores) -> bytes:
    return scores.astype(np.float32).tobytes()


def _distances(scores: Scores) -> Scores:
    """Distances between all different pairs of (n, D), those of equal samples left out."""
    apart = np.zeros((len(scores), len(scores)))
    for column in scores.T:
        np.maximum(apart, np.abs(column[:, None] - column[None]), out=apart)
    between = apart[np.triu_indices(len(scores), 1)]
    return between[between > 0]


def _near(scores: Scores, spared: Flags, radius: float) -> Flags:
    """Which of (n, D) lie within a radius of one that stays: spared ones, then in their order."""
    column = int(np.argmax([len(np.unique(each)) for each in scores.T]))
    by = np.argsort(scores[:, column], kind="stable")
    place = np.argsort(by)
    values = scores[by]
    low = np.searchsorted(values[:, column], scores[:, column] - radius, "left")
    high = np.searchsorted(values[:, column], scores[:, column] + radius, "right")
    stays = spared[by]
    near = np.zeros(len(scores), bool)
    for i in np.flatnonzero(~spared):
        window = slice(low[i], high[i])
        others = values[window][stays[window]]
        near[i] = bool((np.abs(others - scores[i]) <= radius).all(axis=1).any())
        stays[place[i]] = not near[i]
    return near
